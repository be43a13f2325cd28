"""The GPUs of this host, and vLLM processes on them: CUDA_VISIBLE_DEVICES, memory shares, engines that are awake
together, and the order of the start. What an engine needs is counted in `vllm_memory`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from coe.base.errors import ConfigError
from coe.fleet.figures import USUAL, Figures
from coe.fleet.gpus import VISIBLE, named_gpus, visible_gpus
from coe.fleet.residency.memory import SLACK_GIB, Memory
from coe.fleet.residency.types import SleepLevel
from coe.fleet.vllm.command import (
    SLEEP_FLAG,
    VllmProcess,
    each_replica,
    flag_arguments,
    read_adapter_ranks,
    vllm_processes,
)
from coe.fleet.vllm.memory import DEFAULT_SHARE, Size, gpus_of, size_of
from coe.fleet.vllm.model_sizes import Model, read_model
from coe.router.config.composition import CoeConfig

SHARE = "gpu-memory-utilization"
USABLE_SHARE = 0.95  # of a GPU's memory; the rest is for CUDA contexts
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""The order in which nvidia-smi numbers GPUs; CUDA's own puts the fastest first."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Needs of one engine: `gib` on each of `gpus` GPUs while awake. `devices` are those that its entry names.

    Engines of one `expert` follow each other, and are awake together.
    """

    name: str
    gib: float
    gpus: int = 1
    devices: tuple[str, ...] = ()
    expert: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """The GPUs of each engine, and those that are awake once all have started."""

    devices: dict[str, tuple[str, ...]]
    awake: frozenset[str]


def place(
    needs: Sequence[Needs],
    memory_gib: Mapping[str, float],
    *,
    can_sleep: bool,
    sleeper_gib: float = USUAL.sleeper_gib,
) -> Placement:
    """Spreads engines over GPUs, the largest first, each on the GPUs that have least to hold.

    Args:
        needs: the first ones are awake, as far as they fit; each of the others fits while all others sleep.
        memory_gib: of each GPU that may be used.
        can_sleep: engines can take turns, which somebody gives them.
        sleeper_gib: that one keeps on each of its GPUs while it sleeps.

    Raises:
        ConfigError: an engine has no room, or not all fit and they cannot take turns.
    """
    devices = chosen_devices(needs, memory_gib)
    groups = [list(alike) for _, alike in groupby(needs, key=lambda each: each.expert or each.name)]
    for alike in groups:
        if not fits(alike, needs, devices, memory_gib, sleeper_gib):
            used = dict.fromkeys(device for each in alike for device in devices[each.name])
            of_each = f" for each of its {len(alike)} replicas" if alike[1:] else ""
            raise ConfigError(
                f"{alike[0].name}: needs {alike[0].gib:.1f} GiB{of_each} on GPU {', '.join(used)}, beside "
                f"{sleeper_gib:g} GiB for each engine that sleeps there; allowed: "
                f"{min(memory_gib[device] for device in used):.1f} GiB"
            )
    awake: list[Needs] = []
    for alike in groups:
        if fits([*awake, *alike], needs, devices, memory_gib, sleeper_gib):
            awake += alike
    if not can_sleep and (others := [each.name for each in needs if each not in awake]):
        raise ConfigError(
            f"the GPUs hold {', '.join(each.name for each in awake)} and then have no room for {', '.join(others)}; "
            "`residency`, and `enable-sleep-mode: true` in vllm.args, let engines take turns"
        )
    return Placement(devices, frozenset(each.name for each in awake))


def chosen_devices(needs: Sequence[Needs], memory_gib: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """The GPUs of each engine. Raises ConfigError."""
    load_gib = dict.fromkeys(memory_gib, 0.0)
    devices: dict[str, tuple[str, ...]] = {}
    for each in sorted(needs, key=lambda need: (not need.devices, -need.gib)):
        if unknown := [device for device in each.devices if device not in memory_gib]:
            raise ConfigError(f"{each.name}: GPU {', '.join(unknown)} is not there; allowed: {', '.join(memory_gib)}")
        large = [device for device in memory_gib if memory_gib[device] + SLACK_GIB >= each.gib]
        if not each.devices and len(large) < each.gpus:
            raise ConfigError(
                f"{each.name}: needs {each.gpus} GPU of {each.gib:.1f} GiB; there are "
                + ", ".join(f"{device} with {gib:.1f} GiB" for device, gib in memory_gib.items())
            )
        emptiest = sorted(large, key=lambda device: (load_gib[device] + each.gib) / memory_gib[device])
        devices[each.name] = each.devices or tuple(sorted(emptiest[: each.gpus], key=list(memory_gib).index))
        for device in devices[each.name]:
            load_gib[device] += each.gib
    return devices


def fits(
    awake: Collection[Needs],
    needs: Sequence[Needs],
    devices: Mapping[str, tuple[str, ...]],
    memory_gib: Mapping[str, float],
    sleeper_gib: float,
) -> bool:
    """Returns True where these engines are awake and all others sleep within every GPU's memory."""
    wanted = ((devices[each.name], each.gib if each in awake else sleeper_gib) for each in needs)
    return not Memory(memory_gib).excess_of(wanted)


@dataclass(frozen=True, slots=True)
class Placed:
    """A process with its GPUs, and the level at which it sleeps once it has started; None stays awake. `size` is None
    without GPUs."""

    process: VllmProcess
    sleeps_at: SleepLevel | None = None
    size: Size | None = None


def placed_processes(
    config: CoeConfig, folder: Path, environment: Mapping[str, str], figures: Figures = USUAL
) -> list[Placed]:
    """The vLLM processes of a composition on the GPUs that it names, or that this host has.

    Args:
        folder: where experts.yaml lies.

    Raises:
        ConfigError, ArtifactError: as `vllm_processes`, `read_adapter_ranks` and `on_gpus` do.
    """
    processes = each_replica(vllm_processes(config, folder, read_adapter_ranks(config, folder)))
    named = dict.fromkeys(name for process in processes for name in named_gpus(process.env))
    gpus = config.vllm.gpus or (visible_gpus(environment, named) if processes else {})
    models = {each.model: read_model(each.model, {**environment, **each.env}) for each in processes} if gpus else {}
    return on_gpus(config, processes, gpus, models, figures)


def on_gpus(
    config: CoeConfig,
    processes: Sequence[VllmProcess],
    gpus: Mapping[str, float],
    models: Mapping[str, Model | None] | None = None,
    figures: Figures = USUAL,
) -> list[Placed]:
    """Each process on its GPUs. One that shares a GPU gets the share that it needs, unless a flag says another. Without
    GPUs nothing changes.

    Args:
        gpus: GiB of each that may be used.
        models: sizes of models, where they are known.

    Raises:
        ConfigError: they do not fit, or vLLM would refuse to start one.
    """
    if not gpus or not processes:
        return [Placed(process) for process in processes]
    sizes = {each.name: sized(config, each, gpus, (models or {}).get(each.model), figures) for each in processes}
    needs = [
        Needs(each.name, sizes[each.name].gib, gpus_needed(each), tuple(named_gpus(each.env)), each.experts[0])
        for each in processes
    ]
    usable_gib = {number: gib * USABLE_SHARE for number, gib in gpus.items()}
    have_sleep_mode = all(each.flags.get(SLEEP_FLAG) is True for each in processes)
    can_sleep = have_sleep_mode and config.residency is not None
    placement = place(needs, usable_gib, can_sleep=can_sleep, sleeper_gib=figures.sleeper_gib)
    found, host_gib = [], 0.0 if config.residency is None else config.residency.host_memory_gb
    for process in processes:
        devices, size = placement.devices[process.name], sizes[process.name]
        least_gib = min(gpus[number] for number in devices)
        argv = process.argv
        if SHARE not in process.flags:
            if sum(bool(set(devices) & set(each)) for each in placement.devices.values()) == 1:
                size = size._replace(gib=DEFAULT_SHARE * least_gib)  # it is alone there
            else:
                argv += tuple(flag_arguments({SHARE: f"{size.gib / least_gib:.3f}"}))
        refuse_too_small(process, size)
        level: SleepLevel | None = None
        if process.name not in placement.awake:
            level = 1 if size.host_gib <= host_gib else 2
            host_gib -= size.host_gib if level == 1 else 0.0
        env = process.env | BY_BUS | {VISIBLE: ",".join(devices)}
        found.append(Placed(replace(process, argv=argv, env=env), level, size))
    return found


def sized(
    config: CoeConfig,
    process: VllmProcess,
    gpus: Mapping[str, float],
    model: Model | None,
    figures: Figures = USUAL,
) -> Size:
    devices = named_gpus(process.env)
    size_gib = min((gpus[number] for number in devices if number in gpus), default=max(gpus.values()))
    return size_of([config.engine_entries[name] for name in process.experts], process.flags, model, size_gib, figures)


def gpus_needed(process: VllmProcess) -> int:
    return len(named_gpus(process.env)) or gpus_of(process.flags)


def refuse_too_small(process: VllmProcess, size: Size) -> None:
    """Raises ConfigError where vLLM would not start."""
    need = size.need
    if need is None:
        return
    if size.positions and size.context > size.positions:
        raise ConfigError(
            f"{process.key}.context_tokens: {process.name} is to read {size.context} tokens; allowed: "
            f"at most the {size.positions} that its model reads"
        )
    if need.least <= size.gib:
        return
    fits = f"`context_tokens` up to {size.longest}, or " if size.longest else ""
    raise ConfigError(
        f"{process.key}: vLLM would refuse to start {process.name}: one request of {size.context} "
        f"tokens needs {need.least:.1f} of {size.gib:.1f} GiB on each of its GPUs ({need.parts}); allowed: {fits}"
        f"`gpu_gib` from {need.safe:.1f} on a GPU that has it"
    )


def plan_lines(placed: Sequence[Placed]) -> list[str]:
    """What each engine takes of which GPUs, and what makes it so much; nothing without GPUs."""
    lines = []
    for each in placed:
        if each.size is None:
            continue
        state = "awake" if each.sleeps_at is None else f"asleep at level {each.sleeps_at} after its start"
        line = f"{each.process.name}: GPU {each.process.env[VISIBLE]}, {each.size.gib:.1f} GiB of each, {state}"
        need = each.size.need
        if need is None:
            lines.append(f"{line}; estimated: its config.json is not on this host")
            continue
        lines.append(
            f"{line}; one request of {each.size.context} tokens needs {need.least:.1f} ({need.parts}) and up to "
            f"{need.graphs:.1f} for graphs; longest context {each.size.longest}"
        )
    return lines
