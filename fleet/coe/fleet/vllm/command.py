"""From the `engine: vllm` entries of experts.yaml to complete command lines. Pure but for `read_adapter_ranks`.

vLLM is only ever a child process in an interpreter of its own: its packages and the gateway's do not fit into one
environment (it pins an older fastapi).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from coe.base.errors import ArtifactError, ConfigError
from coe.fleet.gpus import VISIBLE, named_gpus
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine, ExpertConfig, ScalarOption
from coe.router.model_files.weights import expanded

MODULE = "vllm.entrypoints.cli.main"
"""The module of the script `vllm`, which some builds lack."""


SLEEP_FLAG = "enable-sleep-mode"

DEV_ENV = {"VLLM_SERVER_DEV_MODE": "1"}
"""Opens the endpoints of sleep mode. Engines listen on loopback, and the gateway passes none of these paths on."""

ENGINE_KEY = "VLLM_API_KEY"
"""Variable with the key that vLLM asks its callers for."""

LOADS_ADAPTERS = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""Variable that opens vLLM's endpoint to load an adapter; it is of use only with `--enable-lora`."""

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that `--max-lora-rank` accepts (vllm/config/lora.py, MaxLoRARanks)."""

OWN_FLAGS = {
    "model": "experts.<name>.model",
    "host": "nothing: engines listen on loopback",
    "port": "vllm.first_port",
    "served-model-name": "experts.<name>.served_model",
    "enable-lora": f"experts.<name>.adapter, or {LOADS_ADAPTERS} in vllm.env",
    "lora-modules": "experts.<name>.adapter",
    "api-key": "VLLM_API_KEY in the environment, which no process list shows",
}
"""Flags that come from elsewhere in experts.yaml, and where they come from."""

DEFAULT_ENV = {"VLLM_NO_USAGE_STATS": "1"}
"""No call home unless `vllm.env` says otherwise."""


@dataclass(frozen=True, slots=True)
class VllmProcess:
    """One vLLM server: the experts it serves, how it is started, and its port. `key` is the path of its first entry.

    `served_names` are those of the model without an adapter, `adapters` the folders by their names on the engine;
    `flags` are all others of `argv`. There are to be `replicas` of it, on the ports that follow (`each_replica`).
    """

    name: str
    experts: tuple[str, ...]
    argv: tuple[str, ...]
    port: int
    env: dict[str, str] = field(default_factory=dict)
    model: str = ""
    served_names: tuple[str, ...] = ()
    adapters: Mapping[str, Path] = field(default_factory=dict)
    flags: Mapping[str, ScalarOption] = field(default_factory=dict)
    replicas: int = 1
    key: str = ""


def vllm_processes(config: CoeConfig, folder: Path, ranks: Mapping[str, int]) -> tuple[VllmProcess, ...]:
    """The processes that serve every vLLM expert without a `url`, on ports from `vllm.first_port` upwards.

    Args:
        folder: where experts.yaml lies; relative adapters and models start there.
        ranks: LoRA rank per expert with an adapter, from `read_adapter_ranks`.

    Raises:
        ConfigError: an argument that comes from another key, a rank that vLLM does not serve, one name for two
            adapters, no port left.
    """
    return tuple(vllm_process(config, names, port, folder, ranks) for port, names in config.vllm_groups)


def each_replica(processes: Iterable[VllmProcess]) -> tuple[VllmProcess, ...]:
    """Every process by itself. GPUs that an entry names are divided among its replicas, if they can be."""
    found = []
    for process in processes:
        gpus = named_gpus(process.env)
        share = 0 if len(gpus) % process.replicas else len(gpus) // process.replicas
        for number in range(process.replicas):
            port, argv = process.port + number, [*process.argv]
            argv[argv.index("--port") + 1] = str(port)
            own = {VISIBLE: ",".join(gpus[number * share : (number + 1) * share])} if share else {}
            name = process.name if number == 0 else f"{process.name}@{number + 1}"
            found.append(replace(process, name=name, argv=tuple(argv), port=port, env=process.env | own, replicas=1))
    return tuple(found)


def managed_experts(config: CoeConfig) -> dict[str, ExpertConfig]:
    """Return the experts and pooling engines whose vLLM this host starts: those without a `url`."""
    return {n: e for n, e in config.engine_entries.items() if e.engine is Engine.VLLM and e.url is None}


def vllm_process(
    config: CoeConfig, names: Sequence[str], port: int, folder: Path, ranks: Mapping[str, int]
) -> VllmProcess:
    """The process on a port for `names`: the same model and arguments, different adapters."""
    engine = config.vllm
    entries = {name: config.engine_entries[name] for name in names}
    first, key = entries[names[0]], config.entry_key(names[0])
    if port + first.replicas - 1 > 65535:
        raise ConfigError(f"vllm.first_port: {engine.first_port} leaves no port for '{names[0]}'")
    adapters = {n: e for n, e in entries.items() if e.adapter is not None}
    bare = [e.name_on_engine(n) for n, e in entries.items() if e.adapter is None]
    refuse_shared_names(adapters, bare)
    env = engine.env | first.engine_env
    flags: dict[str, ScalarOption] = {}
    if not is_pooling(first):
        flags["enable-prompt-tokens-details"] = True  # without it usage does not say what was cached
    if not is_pooling(first) or "context_tokens" in first.model_fields_set:
        flags["max-model-len"] = max(entry.context_tokens for entry in entries.values())
    if env.get(LOADS_ADAPTERS) == "1" and not adapters:
        flags["enable-lora"] = True
    if adapters:
        flags |= {"max-loras": len(adapters), "max-lora-rank": served_rank({name: ranks[name] for name in adapters})}
    flags |= checked_flags("vllm.args", engine.args)
    flags |= checked_flags(f"{key}.engine_args", first.engine_args)
    model, served = model_argument(first.model, folder), bare or [first.model]
    folders = {entry.name_on_engine(name): adapter_folder(entry, folder) for name, entry in adapters.items()}
    argv = [engine.python, "-m", MODULE, "serve", model, "--served-model-name", *served]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    argv += [*lora_arguments(folders), *flag_arguments(flags)]
    env = DEFAULT_ENV | (DEV_ENV if flags.get(SLEEP_FLAG) is True else {}) | env
    return VllmProcess(
        name=f"vllm-{names[0]}",
        experts=tuple(names),
        key=key,
        argv=tuple(argv),
        port=port,
        env=env,
        model=model,
        served_names=tuple(served),
        adapters=folders,
        flags=flags,
        replicas=first.replicas,
    )


def refuse_shared_names(adapters: Mapping[str, ExpertConfig], bare: Sequence[str]) -> None:
    """Raises ConfigError for an adapter whose name on its engine is taken: one would answer for the other."""
    taken = set(bare)
    for expert, entry in adapters.items():
        served = entry.name_on_engine(expert)
        if served in taken:
            raise ConfigError(f"experts.{expert}.served_model: '{served}' names another expert of its engine too")
        taken.add(served)


def checked_flags(where: str, args: Mapping[str, ScalarOption]) -> dict[str, ScalarOption]:
    """Arguments by flag name, without dashes in front and with dashes inside.

    Raises:
        ConfigError: a flag that another key of experts.yaml sets.
    """
    flags = by_flag(args)
    for flag in flags:
        if flag in OWN_FLAGS:
            raise ConfigError(f"{where}.{flag}: not allowed here; it comes from {OWN_FLAGS[flag]}")
    return flags


def is_pooling(entry: ExpertConfig) -> bool:
    """Return whether an engine makes embeddings or scores, not text."""
    return entry.engine_args.get("runner") == "pooling"


def engine_flags(config: CoeConfig, entry: ExpertConfig) -> dict[str, ScalarOption]:
    """The arguments of an expert's engine by flag name; of one at a `url` those that its entry tells of it."""
    ours = config.vllm.args if entry.url is None else {}
    return by_flag({**ours, **entry.engine_args})


def by_flag(args: Mapping[str, ScalarOption]) -> dict[str, ScalarOption]:
    return {flag_of(key): value for key, value in args.items()}


def flag_of(key: str) -> str:
    """The flag that a key of experts.yaml names, however it is written."""
    return key.lstrip("-").replace("_", "-")


def flag_arguments(flags: Mapping[str, ScalarOption]) -> list[str]:
    """`--flag value`; `--flag` alone for true; nothing for false."""
    words: list[str] = []
    for flag, value in flags.items():
        if value is True:
            words.append(f"--{flag}")
        elif value is not False:
            words += [f"--{flag}", str(value)]
    return words


def model_argument(model: str, folder: Path) -> str:
    """A path made absolute when `model` is written as one (./, ../, / or ~ in front); a hub name stays."""
    if model.startswith(("./", "../", "/", "~")):
        return str((folder / expanded(model)).resolve())
    return model


def adapter_folder(entry: ExpertConfig, folder: Path) -> Path:
    """The PEFT folder of an expert, absolute."""
    return (folder / expanded(entry.adapter or "")).resolve()


def lora_arguments(adapters: Mapping[str, Path]) -> list[str]:
    """Flags for adapters, by their names on the engine."""
    return ["--enable-lora", "--lora-modules", *(f"{n}={f}" for n, f in adapters.items())] if adapters else []


def served_rank(ranks: Mapping[str, int]) -> int:
    """The smallest `--max-lora-rank` that holds every adapter.

    Raises:
        ConfigError: a rank above the largest that vLLM serves.
    """
    expert, largest = max(ranks.items(), key=lambda item: item[1])
    for rank in LORA_RANKS:
        if rank >= largest:
            return rank
    raise ConfigError(f"experts.{expert}.adapter: rank {largest} is above what vLLM serves; at most {LORA_RANKS[-1]}")


def read_adapter_ranks(config: CoeConfig, folder: Path) -> dict[str, int]:
    """LoRA rank of every adapter that this host's vLLM serves, from its adapter_config.json.

    Raises:
        ArtifactError: no such folder, or no rank in it.
    """
    entries = {n: e for n, e in managed_experts(config).items() if e.adapter is not None}
    return {name: read_rank(name, adapter_folder(entry, folder)) for name, entry in entries.items()}


def read_rank(expert: str, adapter: Path) -> int:
    path = adapter / "adapter_config.json"
    try:
        rank = json.loads(path.read_text(encoding="utf-8"))["r"]
    except OSError as error:
        raise ArtifactError(f"experts.{expert}.adapter: {path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"experts.{expert}.adapter: {path} names no rank 'r'") from error
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ArtifactError(f"experts.{expert}.adapter: {path} has r={rank!r}; expected a whole number from 1")
    return rank
