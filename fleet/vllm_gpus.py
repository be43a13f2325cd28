"""The GPUs of this host, and vLLM processes on them: CUDA_VISIBLE_DEVICES, memory shares, order of the start."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fleet.placement import Demand, Placement, place
from fleet.residency.types import SleepLevel
from fleet.vllm_command import SLEEP_FLAG, VISIBLE, VllmProcess, flag_arguments
from router.config import CoeConfig
from router.expert_config import ExpertConfig, ScalarOption

SHARE = "gpu-memory-utilization"
USABLE_SHARE = 0.95  # of a GPU's memory; the rest is for CUDA contexts
GIB_PER_BILLION = {"awq": 0.56, "gptq": 0.56, "bitsandbytes": 0.56, "fp8": 0.98, "": 1.87}
"""GiB of weights per billion parameters, by quantisation; "" is bfloat16. 4-bit formats keep scales and some layers."""

CACHE_SHARE, LEAST_CACHE_GIB = 0.25, 4.0
"""Memory beside the weights, for the cache and activations, where an entry does not say: of the weights (ours)."""


def visible_gpus(environment: Mapping[str, str]) -> dict[str, float]:
    """GiB of each GPU that nvidia-smi lists, less those that the environment hides; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        gpus = {number.strip(): float(mib) / 1024 for number, mib in (line.split(",") for line in listed.splitlines())}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    shown = environment.get(VISIBLE)
    return gpus if shown is None else {number: gib for number, gib in gpus.items() if number in shown.split(",")}


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
    demands = [demand_of(config, process, gpus) for process in processes]
    if any(device not in gpus for demand in demands for device in demand.devices) and not config.engines.vllm.gpus:
        return [(process, 0, None) for process in processes]
    usable_gib = {number: gib * USABLE_SHARE for number, gib in gpus.items()}
    placement = place(demands, usable_gib, can_sleep=all(each.flags.get(SLEEP_FLAG) is True for each in processes))
    placed: list[tuple[VllmProcess, int, SleepLevel | None]] = []
    steps = steps_of(placement)
    for process, demand in zip(processes, demands, strict=True):
        devices = placement.devices[process.name]
        is_alone = sum(bool(set(devices) & set(each)) for each in placement.devices.values()) == 1
        argv = process.argv
        if not is_alone and SHARE not in process.flags:
            argv += tuple(flag_arguments({SHARE: f"{demand.gib / min(gpus[number] for number in devices):.3f}"}))
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


def demand_of(config: CoeConfig, process: VllmProcess, gpus: Mapping[str, float]) -> Demand:
    """Needs of a process on these GPUs."""
    devices = tuple(number.strip() for number in process.env.get(VISIBLE, "").split(",") if number.strip())
    size_gib = min((gpus[number] for number in devices if number in gpus), default=max(gpus.values()))
    gib = needed_gib([config.experts[name] for name in process.experts], process.flags, size_gib)
    return Demand(process.name, gib, len(devices) or parallel_of(process.flags), devices, process.experts[0])


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
    return entry.params_b * GIB_PER_BILLION[quantisation(entry.model, str(flags.get("quantization", "")))]


def parallel_of(flags: Mapping[str, ScalarOption]) -> int:
    """GPUs of one engine."""
    return int(flags.get("tensor-parallel-size", 1)) * int(flags.get("pipeline-parallel-size", 1))


def quantisation(model: str, flag: str) -> str:
    """The one that a flag or the model's name tells."""
    words = f"{flag} {model}".lower()
    return next((name for name in GIB_PER_BILLION if name and name in words), "")
