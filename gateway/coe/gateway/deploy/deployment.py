"""The fleet that a composition is elsewhere: engines, the gateway's own experts.yaml, secrets, adapters. Each target is
a folder of templates that is filled in with it.

The command lines of vLLM are those of `coe experts up` (fleet/vllm/command.py), with other addresses.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from hashlib import sha256
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from coe.base.errors import ConfigError
from coe.base.yaml_text import read_yaml
from coe.fleet.gpus import named_gpus
from coe.fleet.vllm.command import (
    ENGINE_KEY,
    SLEEP_FLAG,
    VllmProcess,
    adapter_folder,
    each_replica,
    flag_of,
    managed_experts,
    read_adapter_ranks,
    vllm_processes,
)
from coe.fleet.vllm.memory import gpus_of
from coe.fleet.vllm.pull import SCRIPT, pull_argument
from coe.gateway.settings import secret_variables
from coe.router.config.composition import CoeConfig, config_text, parse_config
from coe.router.config.expert import Engine

ADAPTERS_AT, PILOTS_AT = "/adapters", "/data/pilots"
"""Folders in a container: of the adapters, and of a pilot library, which `coe retrain` writes."""

OF_THE_HOST = frozenset({"CUDA_VISIBLE_DEVICES", "HF_HOME"})
"""Variables of engines that speak of one host; a target says in its own way which GPUs and which folder."""

MOST_ENGINE_REPLICAS = 4
"""Replicas to which a chart lets an engine grow (ours; to be edited)."""

ENGINE_PORT = 8000
GB_PER_BILLION, SPARE_GB = 2.2, 10
"""Disk for weights of 16 bits each, a tenth more, and for the rest of a model's files."""

DRAIN = "shutdown-timeout"
DRAIN_S, SPARE_S = 120, 30
"""For requests of an engine that is to end, where no flag says another time, and for its end."""


class Target(StrEnum):
    """The platform that is to run it, by the folder of its templates."""

    COMPOSE = "compose"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class EngineUnit:
    """A vLLM server under a name that DNS takes."""

    name: str
    process: VllmProcess

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return gpus_of(self.process.flags)

    @property
    def most(self) -> int:
        """Replicas to which it may grow."""
        return max(MOST_ENGINE_REPLICAS, self.process.replicas)

    @property
    def env(self) -> dict[str, str]:
        """Environment without what speaks of one host."""
        return {name: value for name, value in self.process.env.items() if name not in OF_THE_HOST}

    @property
    def words(self) -> list[str]:
        """Arguments of Python in a container, which other containers reach."""
        words = list(self.process.argv[1:])
        words[words.index("--host") + 1], words[words.index("--port") + 1] = "0.0.0.0", str(ENGINE_PORT)
        return words if DRAIN in self.process.flags else [*words, f"--{DRAIN}", str(DRAIN_S)]

    @property
    def pulled(self) -> str:
        """Its model and revision, as the script that downloads models takes them."""
        return pull_argument(self.process)

    @property
    def grace_s(self) -> int:
        """Seconds from SIGTERM until it has surely ended by itself."""
        return int(self.process.flags.get(DRAIN, DRAIN_S)) + SPARE_S


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

    @property
    def replicas(self) -> tuple[EngineUnit, ...]:
        """Every engine by itself, those of an expert one after the other."""
        return units_of(each_replica(unit.process for unit in self.engines))

    @property
    def has_shared_index(self) -> bool:
        retrieval = self.config.retrieval
        return retrieval is not None and retrieval.pgvector_url_env is not None

    @property
    def disk_gb(self) -> int:
        """Disk for the weights of all engines."""
        entries = [self.config.engine_entries[name] for unit in self.engines for name in unit.process.experts]
        sizes = {entry.model: entry.params_b for entry in entries}
        return sum(math.ceil(size_b * GB_PER_BILLION) + SPARE_GB for size_b in sizes.values())

    def experts_yaml(self, target: Target) -> str:
        """The gateway's experts.yaml, in which each engine is somewhere else, with a key. In a cluster vector stores
        are in Postgres, which searches: no gateway holds all of them in memory."""
        values = deepcopy(self.values)
        for unit in self.engines:
            roots = self.roots_of(unit, target)
            for name in unit.process.experts:
                section = values if name in self.config.experts else values["retrieval"]
                entry = section["experts" if section is values else "engines"][name]
                entry |= {
                    "url": roots if roots[1:] else roots[0],
                    "served_model": self.config.engine_entries[name].name_on_engine(name),
                }
                entry.pop("replicas", None)
                entry.setdefault("api_key_env", ENGINE_KEY)
        if target is Target.KUBERNETES and self.config.retrieval is not None:
            values["retrieval"].setdefault("pgvector_url_env", "DATABASE_URL")
        return yaml_text(values)

    def roots_of(self, unit: EngineUnit, target: Target) -> list[str]:
        """API roots of an engine's replicas, as gateways reach them: a service each, or one for all in a cluster."""
        if target is Target.KUBERNETES:
            return [f"http://vllm-{unit.name}:{ENGINE_PORT}/v1"]
        alike = (each.name for each in self.replicas if each.process.experts == unit.process.experts)
        return [f"http://vllm-{name}:{ENGINE_PORT}/v1" for name in alike]


def rendered(deployment: Deployment, target: Target) -> dict[str, str]:
    """The target's files: its templates, filled in. What the composition needs none of is left out."""
    environment = Environment(
        loader=PackageLoader("coe.gateway.deploy"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["json"] = partial(json.dumps, ensure_ascii=False)  # which is YAML, whatever the text
    experts = deployment.experts_yaml(target)
    values = {
        "fleet": deployment,
        "experts": experts,
        "gpus": numbered_gpus(deployment.replicas),
        "pull": SCRIPT.read_text(encoding="utf-8"),
        "revision": sha256((experts + deployment.image).encode()).hexdigest()[:8],
        "secrets": [name for name in deployment.secrets if not (deployment.engines and name == ENGINE_KEY)],
    }
    names = [name for name in environment.list_templates() if name.startswith(f"{target}/")]
    texts = {
        name.removeprefix(f"{target}/"): environment.get_template(name).render(values).strip() + "\n" for name in names
    }
    return {name: text for name, text in texts.items() if text.strip()}


def numbered_gpus(units: Sequence[EngineUnit]) -> dict[str, list[str]]:
    """GPUs of each engine: those that experts.yaml names, otherwise the next ones that nobody names. Docker would give
    the first ones to all."""
    named = {unit.name: named_gpus(unit.process.env) for unit in units}
    taken = {each for ids in named.values() for each in ids}
    free = (number for number in map(str, count()) if number not in taken)
    return {unit.name: named[unit.name] or list(islice(free, unit.gpus)) for unit in units}


def plan_deployment(path: Path, *, image: str, vllm_image: str) -> Deployment:
    """The deployment of an experts.yaml.

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
        values["experts"][name]["adapter"] = f"{ADAPTERS_AT}/{name}"
    stay_awake(values)
    pilots = config.retrieval.pilots if config.retrieval else None
    if pilots is not None and not Path(pilots).is_absolute():
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
    )


def stay_awake(values: Any) -> None:
    """Leaves out sleep mode: each engine has its GPUs to itself, and a call to one of several replicas that share an
    address would put any of them to sleep."""
    values.pop("residency", None)
    entries = {**values["experts"], **(values.get("retrieval") or {}).get("engines", {})}
    sections = [entry.get("engine_args") for entry in entries.values()]
    sections.append(values.get("vllm", {}).get("args"))
    for args in filter(None, sections):
        for flag in [key for key in args if flag_of(key) == SLEEP_FLAG]:
            del args[flag]


def refuse_local_models(config: CoeConfig, path: Path) -> None:
    """Raises ConfigError for weights that a container does not have."""
    hosted = {n: e for n, e in config.experts.items() if e.engine is Engine.LLAMACPP} | managed_experts(config)
    for name, entry in hosted.items():
        if entry.model.startswith(("./", "../", "/", "~")):
            raise ConfigError(
                f"{path}: {config.entry_key(name)}.model: '{entry.model}' is a file of this machine; allowed in a "
                "deployment: the name of a hub or of a package"
            )
    for family, places in config.plugins.items():
        for kind, place in places.items():
            if place.endswith(".py"):
                raise ConfigError(
                    f"{path}: plugins.{family}.{kind}: '{place}' is a file of this machine; allowed in a deployment: "
                    "the dotted name of a module that the image has"
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


def yaml_text(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
