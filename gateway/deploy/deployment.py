"""The parts of a composition that every target starts: engines, the gateway's own experts.yaml, secrets, adapters.

The command lines of vLLM are those of `coe experts up` (fleet/vllm_command.py), with other addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from base.errors import ConfigError
from base.yaml_text import read_yaml
from fleet.vllm_command import (
    SLEEP_FLAG,
    VllmProcess,
    adapter_folder,
    each_replica,
    flag_of,
    managed_experts,
    read_adapter_ranks,
    vllm_processes,
)
from gateway.settings import secret_variables
from router.config import CoeConfig, config_text, parse_config
from router.expert_config import Engine

ADAPTERS_AT, PILOTS_AT = "/adapters", "/data/pilots"
"""Folders in a container: of the adapters, and of a pilot library, which `coe retrain` writes."""

ENGINE_KEY = "VLLM_API_KEY"
"""Variable with the key that vLLM asks its callers for, and that the gateway sends."""

OF_THE_HOST = frozenset({"CUDA_VISIBLE_DEVICES", "HF_HOME"})
"""Variables of engines that speak of one host; a target says in its own way which GPUs and which folder."""

ENGINE_CPUS, ENGINE_MEMORY = 4, "16Gi"
MOST_ENGINE_REPLICAS, WAITING_PER_REPLICA = 4, 4
"""Replicas of an engine, and requests waiting in one from which on another is started (ours; to be edited)."""


@dataclass(frozen=True, slots=True)
class EngineUnit:
    """A vLLM server under a name that DNS takes."""

    name: str
    process: VllmProcess

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        flags = self.process.flags
        sizes = [flags.get(f"{kind}-parallel-size", 1) for kind in ("tensor", "pipeline", "data")]
        return int(sizes[0]) * int(sizes[1]) * int(sizes[2])

    @property
    def most(self) -> int:
        """Replicas to which it may grow."""
        return max(MOST_ENGINE_REPLICAS, self.process.replicas)

    @property
    def env(self) -> dict[str, str]:
        """Environment without what speaks of one host."""
        return {name: value for name, value in self.process.env.items() if name not in OF_THE_HOST}


RootsOf = Callable[[EngineUnit], Sequence[str]]
"""API roots of an engine and its replicas, as the gateway reaches them."""

ServedAs = Callable[[EngineUnit, str], str]
"""Name of an expert on its engine."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A composition that is to run elsewhere.

    `values` are those of experts.yaml, with each adapter at its place in a container. `adapters` are folders on this
    machine by the name of their folder there. `secrets` are variables that the file names.
    """

    source: str
    image: str
    vllm_image: str
    values: dict[str, Any]
    config: CoeConfig
    engines: tuple[EngineUnit, ...]
    adapters: Mapping[str, Path]
    secrets: tuple[str, ...]
    adapter_store: str | None = None

    @property
    def grace_s(self) -> int:
        """Seconds from SIGTERM until a gateway has surely ended by itself."""
        limits = self.config.gateway
        return int(limits.drain_s + limits.shutdown_grace_s) + 15

    @property
    def lock(self) -> str:
        """The image's build argument LOCK: `run` where the gateway itself needs an engine or litellm, `dev` where it
        needs an extra that only the tests' lock has."""
        if self.config.gateway.oidc is not None:
            return "dev"
        inside = {Engine.LLAMACPP, Engine.LITELLM}
        return "run" if inside & {entry.engine for entry in self.config.experts.values()} else "image"

    def header(self, *lines: str) -> str:
        """Comment at the top of a rendered file."""
        about = f"Rendered by `coe deploy render` from {self.source}."
        return "".join(f"# {line}".rstrip() + "\n" for line in (about, *lines))

    @property
    def replicas(self) -> tuple[EngineUnit, ...]:
        """Every engine by itself, those of an expert one after the other."""
        return units_of(each_replica(unit.process for unit in self.engines))

    def experts_yaml(self, roots_of: RootsOf, served_as: ServedAs | None = None, *, has_key: bool = True) -> str:
        """The gateway's experts.yaml, in which each engine is somewhere else, perhaps with a key and other names."""
        values = deepcopy(self.values)
        for unit in self.engines:
            for name in unit.process.experts:
                own = self.config.experts[name].name_on_engine(name)
                entry, (first, *others) = values["experts"][name], roots_of(unit)
                entry |= {"url": first, "served_model": served_as(unit, name) if served_as else own}
                entry.pop("replicas", None)
                if others:
                    entry["replica_urls"] = others
                if has_key:
                    entry.setdefault("api_key_env", ENGINE_KEY)
        return yaml_text(values)


def plan_deployment(
    path: Path, *, image: str, vllm_image: str, in_container: bool = True, adapter_store: str | None = None
) -> Deployment:
    """The deployment of an experts.yaml. The gateway runs in a container, or beside its own file and the folder
    `adapters`; `adapter_store` is a bucket from which Ray loads them.

    Raises:
        ConfigError: the file is wrong, or an expert's weights are files of this machine.
        ArtifactError: an adapter cannot be read.
    """
    values: Any = read_yaml(config_text(path), file=str(path))
    config, folder = parse_config(values, file=str(path)), path.resolve().parent
    refuse_local_models(config, path)
    ranks = read_adapter_ranks(config, folder)
    adapters = {
        name: adapter_folder(entry, folder)
        for name, entry in config.experts.items()
        if entry.adapter is not None and entry.url is None
    }
    for name, adapter in adapters.items():
        if not (adapter / "adapter_config.json").is_file():
            raise ConfigError(f"{path}: experts.{name}.adapter: {adapter} has no adapter_config.json")
        values["experts"][name]["adapter"] = f"{ADAPTERS_AT if in_container else 'adapters'}/{name}"
    stay_awake(values)
    pilots = config.retrieval.pilots if config.retrieval else None
    if in_container and pilots is not None and not Path(pilots).is_absolute():
        values["retrieval"]["pilots"] = PILOTS_AT
    placed = parse_config(values, file=str(path))
    return Deployment(
        source=path.name,
        image=image,
        vllm_image=vllm_image,
        values=values,
        config=placed,
        engines=units_of(vllm_processes(placed, Path("/"), ranks)),
        adapters=adapters,
        secrets=tuple(secret_variables(placed)),
        adapter_store=adapter_store,
    )


def stay_awake(values: Any) -> None:
    """Leaves out sleep mode: each engine has its GPUs to itself, and a call to one of several replicas that share an
    address would put any of them to sleep."""
    values.pop("residency", None)
    sections = [entry.get("engine_args") for entry in values["experts"].values()]
    sections.append(values.get("engines", {}).get("vllm", {}).get("args"))
    for args in filter(None, sections):
        for flag in [key for key in args if flag_of(key) == SLEEP_FLAG]:
            del args[flag]


def refuse_local_models(config: CoeConfig, path: Path) -> None:
    """Raises ConfigError for weights that a container does not have."""
    if fakes := [name for name, entry in config.experts.items() if entry.engine is Engine.FAKE_VLLM]:
        raise ConfigError(f"{path}: experts.{fakes[0]}.engine: '{Engine.FAKE_VLLM}' is for tests; allowed here: vllm")
    hosted = {n: e for n, e in config.experts.items() if e.engine is Engine.LLAMACPP} | managed_experts(config)
    for name, entry in hosted.items():
        if entry.model.startswith(("./", "../", "/", "~")):
            raise ConfigError(
                f"{path}: experts.{name}.model: '{entry.model}' is a file of this machine; allowed in a deployment: "
                "the name of a hub or of a package"
            )


def units_of(processes: Iterable[VllmProcess]) -> tuple[EngineUnit, ...]:
    """Each process under its first expert's name in small letters, with a number where that is taken."""
    units: dict[str, EngineUnit] = {}
    for process in processes:
        label = re.sub(r"[^a-z0-9]+", "-", process.experts[0].lower()).strip("-")[:30] or "engine"
        names = chain([label], (f"{label}-{number}" for number in count(2)))
        name = next(each for each in names if each not in units)
        units[name] = EngineUnit(name, process)
    return tuple(units.values())


class PlainDumper(yaml.SafeDumper):
    """Writes no anchors, and text of several lines as it is."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


PlainDumper.add_representer(str, PlainDumper.represent_text)


def yaml_text(*documents: Any) -> str:
    return yaml.dump_all(documents, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=120)


def environment_example(deployment: Deployment, first: Sequence[str], *, has_engine_key: bool = True) -> str:
    """Every variable that must have a value, those of the target first."""
    engine_key = [ENGINE_KEY] if deployment.engines and has_engine_key else []
    lines = ["# Copy to `environment`, mode 0600. openssl rand -hex 16 makes a password or a key.", *assigned(first)]
    lines += ["# An admin's key, of 16 random characters or more; for clients: coe keys create TEAM", "COE_API_KEYS="]
    if engine_key:
        lines += ["# Key between the gateway and vLLM", *assigned(engine_key)]
    if others := [name for name in deployment.secrets if name not in {*first, *engine_key}]:
        lines += ["# Keys by the names that experts.yaml gives them", *assigned(others)]
    if deployment.engines and has_engine_key:
        lines += ["# For models that the hub gives only to those who signed for them", "# HF_TOKEN="]
    return "\n".join(lines) + "\n"


def assigned(names: Sequence[str]) -> list[str]:
    return [f"{name}=" for name in names]
