"""The GPUs of this host, and vLLM processes on them: CUDA_VISIBLE_DEVICES, memory shares, engines that are awake
together, and the order of the start."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from coe.base.errors import ConfigError
from coe.fleet.residency.memory import SLACK_GIB, SLEEPER_GIB, Memory
from coe.fleet.residency.types import SleepLevel
from coe.fleet.vllm_command import SLEEP_FLAG, VISIBLE, VllmProcess, flag_arguments, named_gpus
from coe.router.config import CoeConfig
from coe.router.expert_config import ExpertConfig, ScalarOption

SHARE = "gpu-memory-utilization"
USABLE_SHARE = 0.95  # of a GPU's memory; the rest is for CUDA contexts
GIB_PER_BILLION = {"awq": 0.56, "gptq": 0.56, "bitsandbytes": 0.56, "fp8": 0.98, "": 1.87}
"""GiB of weights per billion parameters, by quantisation; "" is bfloat16. 4-bit formats keep scales and some layers."""

CACHE_SHARE, LEAST_CACHE_GIB = 0.25, 4.0
"""Memory for cache and activations where an entry names none: a share of the weights, at least so many GiB (ours)."""


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
    """The GPUs of each engine, and the order of their start.

    `waves` are started one after the other; each but the last is put to sleep before the next. The last are awake.
    """

    devices: dict[str, tuple[str, ...]]
    waves: tuple[tuple[str, ...], ...]


def place(needs: Sequence[Needs], memory_gib: Mapping[str, float], *, can_sleep: bool) -> Placement:
    """Spreads engines over GPUs, the largest first, each on the GPUs that have least to hold.

    Args:
        needs: the first ones are awake at the end, as far as they fit.
        memory_gib: of each GPU that may be used.
        can_sleep: engines can take turns, which somebody gives them.

    Raises:
        ConfigError: an engine has no room, or not all fit and they cannot take turns.
    """
    devices = chosen_devices(needs, memory_gib)
    waiting = [list(alike) for _, alike in groupby(needs, key=lambda each: each.expert or each.name)]
    for alike in waiting:
        if not fits(alike, needs, devices, memory_gib):
            used = dict.fromkeys(device for each in alike for device in devices[each.name])
            of_each = f" for each of its {len(alike)} replicas" if alike[1:] else ""
            raise ConfigError(
                f"{alike[0].name}: needs {alike[0].gib:.1f} GiB{of_each} on GPU {', '.join(used)}, beside "
                f"{SLEEPER_GIB:g} GiB for each engine that sleeps there; allowed: "
                f"{min(memory_gib[device] for device in used):.1f} GiB"
            )
    waves: list[tuple[str, ...]] = []
    while waiting:
        wave: list[Needs] = []
        for alike in waiting:
            if fits([*wave, *alike], needs, devices, memory_gib):
                wave += alike
        waves.append(tuple(each.name for each in wave))
        waiting = [alike for alike in waiting if alike[0] not in wave]
    if len(waves) > 1 and not can_sleep:
        others = ", ".join(name for wave in waves[1:] for name in wave)
        raise ConfigError(
            f"the GPUs hold {', '.join(waves[0])} and then have no room for {others}; "
            "`residency`, and `enable-sleep-mode: true` in vllm.args, let engines take turns"
        )
    return Placement(devices, tuple(reversed(waves)))


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
) -> bool:
    """Returns True where these engines are awake and all others sleep within every GPU's memory."""
    wanted = ((devices[each.name], each.gib if each in awake else SLEEPER_GIB) for each in needs)
    return not Memory(memory_gib).excess_of(wanted)


def visible_gpus(environment: Mapping[str, str]) -> dict[str, float]:
    """GiB of each GPU that nvidia-smi lists, less those that the environment hides; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        gpus = {number.strip(): float(mib) / 1024 for number, mib in (line.split(",") for line in listed.splitlines())}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    shown = named_gpus(environment) if VISIBLE in environment else gpus
    return {number: gib for number, gib in gpus.items() if number in shown}


def on_gpus(
    config: CoeConfig, processes: Sequence[VllmProcess], gpus: Mapping[str, float]
) -> list[tuple[VllmProcess, int, SleepLevel | None]]:
    """Each process with its GPUs, the step of its start, and the level at which it sleeps then; None stays awake.

    A process that shares a GPU gets the share that it needs, unless a flag says another. Without GPUs nothing changes,
    nor where an entry names its GPUs in another way than by their numbers.

    Raises:
        ConfigError: they do not fit.
    """
    if not gpus or not processes:
        return [(process, 0, None) for process in processes]
    needs = [needs_of(config, process, gpus) for process in processes]
    if any(device not in gpus for need in needs for device in need.devices) and not config.vllm.gpus:
        return [(process, 0, None) for process in processes]
    usable_gib = {number: gib * USABLE_SHARE for number, gib in gpus.items()}
    have_sleep_mode = all(each.flags.get(SLEEP_FLAG) is True for each in processes)
    placement = place(needs, usable_gib, can_sleep=have_sleep_mode and config.residency is not None)
    placed: list[tuple[VllmProcess, int, SleepLevel | None]] = []
    steps = steps_of(placement)
    for process, need in zip(processes, needs, strict=True):
        devices = placement.devices[process.name]
        is_alone = sum(bool(set(devices) & set(each)) for each in placement.devices.values()) == 1
        argv = process.argv
        if not is_alone and SHARE not in process.flags:
            argv += tuple(flag_arguments({SHARE: f"{need.gib / min(gpus[number] for number in devices):.3f}"}))
        # level 2 needs no host memory, but vLLM cannot wake adapters from it
        asleep: SleepLevel = 1 if "max-loras" in process.flags else 2
        level = None if process.name in placement.waves[-1] else asleep
        placed_process = replace(process, argv=argv, env=process.env | {VISIBLE: ",".join(devices)})
        placed.append((placed_process, steps[process.name], level))
    return placed


def steps_of(placement: Placement) -> dict[str, int]:
    """Returns the step at which each engine starts: wave after wave, and those that share a GPU one after the other,
    because vLLM measures the free memory while it starts."""
    steps: dict[str, int] = {}
    for wave in placement.waves:
        begin, taken = max(steps.values(), default=-1) + 1, list[set[str]]()
        for name in wave:
            devices = set(placement.devices[name])
            step = next((step for step, others in enumerate(taken) if not others & devices), len(taken))
            taken += [set()] if step == len(taken) else []
            taken[step] |= devices
            steps[name] = begin + step
    return steps


def needs_of(config: CoeConfig, process: VllmProcess, gpus: Mapping[str, float]) -> Needs:
    """Needs of a process on these GPUs."""
    devices = tuple(named_gpus(process.env))
    size_gib = min((gpus[number] for number in devices if number in gpus), default=max(gpus.values()))
    gib = needed_gib([config.experts[name] for name in process.experts], process.flags, size_gib)
    return Needs(process.name, gib, len(devices) or parallel_of(process.flags), devices, process.experts[0])


def needed_gib(entries: Sequence[ExpertConfig], flags: Mapping[str, ScalarOption], size_gib: float) -> float:
    """GiB of each of its GPUs that an engine takes: as an entry says, as its share says, or by its parameters.

    Args:
        entries: of the experts on it.
        size_gib: of a GPU.
    """
    if told_gib := [entry.gpu_gib for entry in entries if entry.gpu_gib is not None]:
        return max(told_gib)
    if SHARE in flags and not isinstance(flags[SHARE], str):
        return float(flags[SHARE]) * size_gib
    if not entries[0].params_b:
        return 0.9 * size_gib  # vLLM's own default share
    weights, parallel = weights_gib(entries[0], flags), parallel_of(flags)
    return (weights + max(LEAST_CACHE_GIB * parallel, CACHE_SHARE * weights)) / parallel


def weights_gib(entry: ExpertConfig, flags: Mapping[str, ScalarOption]) -> float:
    """Quantised as a flag or the model's name tells."""
    words = f"{flags.get('quantization', '')} {entry.model}".lower()
    return entry.params_b * next(gib for name, gib in GIB_PER_BILLION.items() if name in words)


def parallel_of(flags: Mapping[str, ScalarOption]) -> int:
    """GPUs of one engine."""
    return int(flags.get("tensor-parallel-size", 1)) * int(flags.get("pipeline-parallel-size", 1))
