"""GPUs of each engine, and the engines that are awake together. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from base.errors import ConfigError
from fleet.residency.memory import SLACK_GIB, SLEEPER_GIB, Memory


@dataclass(frozen=True, slots=True)
class Demand:
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


def place(demands: Sequence[Demand], memory_gib: Mapping[str, float], *, can_sleep: bool) -> Placement:
    """Spreads engines over GPUs, the largest first, each on the GPUs that have least to hold.

    Args:
        demands: the first ones are awake at the end, as far as they fit.
        memory_gib: of each GPU that may be used.
        can_sleep: engines can take turns.

    Raises:
        ConfigError: an engine has no room, or not all fit and they cannot take turns.
    """
    devices = chosen_devices(demands, memory_gib)
    waiting = [list(alike) for _, alike in groupby(demands, key=lambda each: each.expert or each.name)]
    for alike in waiting:
        if not fits(alike, demands, devices, memory_gib):
            used = dict.fromkeys(device for each in alike for device in devices[each.name])
            of_each = f" for each of its {len(alike)} replicas" if alike[1:] else ""
            raise ConfigError(
                f"{alike[0].name}: needs {alike[0].gib:.1f} GiB{of_each} on GPU {', '.join(used)}, beside "
                f"{SLEEPER_GIB:g} GiB for each engine that sleeps there: more than there is"
            )
    waves: list[tuple[str, ...]] = []
    while waiting:
        wave: list[Demand] = []
        for alike in waiting:
            if fits([*wave, *alike], demands, devices, memory_gib):
                wave += alike
        waves.append(tuple(each.name for each in wave))
        waiting = [alike for alike in waiting if alike[0] not in wave]
    if len(waves) > 1 and not can_sleep:
        others = ", ".join(name for wave in waves[1:] for name in wave)
        raise ConfigError(
            f"the GPUs hold {', '.join(waves[0])} and then have no room for {others}; "
            "`enable-sleep-mode: true` in engines.vllm.args lets engines take turns"
        )
    return Placement(devices, tuple(reversed(waves)))


def chosen_devices(demands: Sequence[Demand], memory_gib: Mapping[str, float]) -> dict[str, tuple[str, ...]]:
    """The GPUs of each engine. Raises ConfigError."""
    load_gib = dict.fromkeys(memory_gib, 0.0)
    devices: dict[str, tuple[str, ...]] = {}
    for each in sorted(demands, key=lambda demand: (not demand.devices, -demand.gib)):
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
    awake: Collection[Demand],
    demands: Sequence[Demand],
    devices: Mapping[str, tuple[str, ...]],
    memory_gib: Mapping[str, float],
) -> bool:
    """Returns True where these engines are awake and all others sleep within every GPU's memory."""
    needs = ((devices[each.name], each.gib if each in awake else SLEEPER_GIB) for each in demands)
    return not Memory(memory_gib).excess_of(needs)
