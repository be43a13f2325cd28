"""Engines that share the memory of a host, and the room that their states take. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from coe.fleet.figures import USUAL
from coe.fleet.residency.types import Residency, TransitionTimes

SLACK_GIB = 1e-6


@dataclass(frozen=True, slots=True)
class Resident:
    """One engine with the experts that it serves; they sleep and wake together.

    Args:
        awake_gib: GPU memory when awake, weights and cache, spread evenly over its `devices`; one that several of its
            replicas are on is named once for each.
        host_gib: host memory that level 1 takes.
        is_pinned: woken at the start and never put to sleep.
        passed: states from which it woke with its weights.
        failed: those from which it did not.
    """

    name: str
    awake_gib: float
    host_gib: float
    times: TransitionTimes
    experts: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("0",)
    sleeper_gib: float = USUAL.sleeper_gib
    is_pinned: bool = False
    passed: frozenset[Residency] = frozenset()
    failed: frozenset[Residency] = frozenset()

    def device_gib(self, state: Residency) -> float:
        """GPU memory on each of its devices."""
        if state in (Residency.AWAKE, Residency.STARTING):
            return self.awake_gib / max(len(self.devices), 1)  # experts elsewhere have none, and need nothing
        return 0.0 if state is Residency.STOPPED else self.sleeper_gib


States = Mapping[str, Residency]


@dataclass(frozen=True)
class Memory:
    """GPU memory by device, and host memory for the weights of sleepers at level 1; GiB."""

    device_gib: Mapping[str, float]
    host_gib: float = 0.0

    def excess_gib(self, residents: Sequence[Resident], states: States) -> dict[str, float]:
        """Devices that have too little memory for these states, and how much they lack."""
        return self.excess_of((each.devices, each.device_gib(states[each.name])) for each in residents)

    def excess_of(self, needs: Iterable[tuple[Sequence[str], float]]) -> dict[str, float]:
        """The same for needs in GiB, each of which is taken on all of its devices."""
        used = dict.fromkeys(self.device_gib, 0.0)
        for devices, gib in needs:
            for device in devices:
                used[device] += gib
        return {
            device: gib - self.device_gib[device]
            for device, gib in used.items()
            if gib > self.device_gib[device] + SLACK_GIB
        }

    def host_free_gib(self, residents: Sequence[Resident], states: States, kept: Collection[str] = ()) -> float:
        """Without what engines at level 1 take, and those of `kept`, which were at it: a process keeps pinned memory to
        its end (vLLM issue 16663)."""
        taken = (each for each in residents if states[each.name] is Residency.SLEEP_1 or each.name in kept)
        return self.host_gib - sum(each.host_gib for each in taken)


def sleep_state(resident: Resident, host_free_gib: float) -> Residency:
    """The state that gives an engine's memory free: level 1 where the host has room for its weights; level 2 where not,
    or where the engine came back from it before and that is the shorter way; stopped where neither can be."""
    has_room = resident.host_gib <= host_free_gib + SLACK_GIB
    allowed = [Residency.SLEEP_1] if has_room and Residency.SLEEP_1 not in resident.failed else []
    if Residency.SLEEP_2 not in resident.failed and (not allowed or Residency.SLEEP_2 in resident.passed):
        allowed.append(Residency.SLEEP_2)
    return min(allowed or [Residency.STOPPED], key=resident.times.cycle_s)
