"""A host on a fake clock that serves arrivals with the gateway's own residency scheduler.

Times are in seconds of the trace. A request waits for its engine to be awake, or for any while none is, and for a slot,
never for others' work.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.hosted_sets import hosted_experts
from benchmarks.residency_arrivals import Arrivals, IntArray
from benchmarks.residency_tables import Table
from coe.fleet.figures import USUAL
from coe.fleet.residency.demand import Float64Array
from coe.fleet.residency.memory import Memory, Resident, sleep_state
from coe.fleet.residency.scheduler import Goal, Scheduler, Step
from coe.fleet.residency.types import SLEEPS, Residency, TransitionTimes, published_times

GIB_PER_B = 2e9 / 2**30
"""BF16."""

CACHE_GIB = 4.0
LOOK_EVERY_S = 5.0
BOTH = frozenset(SLEEPS)  # engines come back from either level with their weights
SLOTS = 16
SERVICE_S = 3.0
"""Mean service of an 8B model; of others by the square root of their size (ours)."""


def host_of(table: Table, fits: float) -> tuple[tuple[Resident, ...], Memory]:
    """An engine an expert, and a GPU's worth of memory in which `fits` of mean size are awake beside the sleepers."""
    residents = tuple(
        Resident(name, GIB_PER_B * size + CACHE_GIB, GIB_PER_B * size, published_times(size), (name,), passed=BOTH)
        for name, size in zip(table.experts, table.params_b, strict=True)
    )
    mean = float(np.mean([each.awake_gib for each in residents]))
    largest = max(each.awake_gib for each in residents)
    gib = max(fits * mean, largest) + USUAL.sleeper_gib * (len(residents) - fits)
    return residents, Memory({"0": gib}, host_gib=2 * gib)


def equal_slots(table: Table, fits: float, switch_s: float) -> tuple[tuple[Resident, ...], Memory]:
    """A host of engines that are all alike: `fits` are awake, sleepers need nothing, and a switch takes `switch_s`."""
    times = TransitionTimes(0.0, switch_s, 0.0, switch_s, switch_s)
    residents = tuple(Resident(name, 1.0, 0.0, times, (name,), sleeper_gib=0.0) for name in table.experts)
    return residents, Memory({"0": fits})


def static_set(table: Table, residents: Sequence[Resident], gib: float, counts: Float64Array) -> tuple[str, ...]:
    """The experts of highest mean predicted quality for a mix of categories (k,) that fit in memory; none sleep."""
    rows = np.repeat(np.arange(len(counts)), np.ceil(400 * counts / counts.sum()).astype(int))
    sizes = np.array([each.awake_gib for each in residents])
    chosen = hosted_experts(table.predicted[rows], sizes, [gib])[0]
    return tuple(each.name for each, is_in in zip(residents, chosen, strict=True) if is_in)


def first_states(
    residents: Sequence[Resident], memory: Memory, awake: Sequence[str], *, starts_cold: bool
) -> dict[str, Residency]:
    """Some awake, and the others asleep as far as memory goes; stopped at a cold start."""
    states = {each.name: Residency.AWAKE if each.name in awake else Residency.STOPPED for each in residents}
    for each in residents:
        if each.name not in awake and not starts_cold:
            asleep = {**states, each.name: sleep_state(each, memory.host_free_gib(residents, states))}
            if not memory.excess_gib(residents, asleep):
                states = asleep
    return states


@dataclass
class Tally:
    """Of each request: who served it and how long it waited; of the host: changes and their seconds."""

    served: IntArray
    wait_s: Float64Array
    switches: int = 0
    switch_s: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


class Host:
    """Serves arrivals. `stalls`: no request starts while an engine changes its state, as if copying took the GPU."""

    def __init__(
        self, table: Table, scheduler: Scheduler, arrivals: Arrivals, *, on_demand: bool, stalls: bool
    ) -> None:
        self._table, self._scheduler, self._arrivals = table, scheduler, arrivals
        self._on_demand, self._stalls = on_demand, stalls
        self._queues: list[deque[int]] = [deque() for _ in table.experts]
        self._parked: list[tuple[int, int]] = []  # requests, by arrival, with the engine that each asked for
        self._busy = [0] * len(table.experts)
        self._events: list[tuple[float, int, int]] = []
        self._looked_at_s = -np.inf
        self._seconds = [SERVICE_S * (size / 8.0) ** 0.5 for size in table.params_b]
        n = len(arrivals.at_s)
        self.tally = Tally(np.full(n, -1), np.zeros(n))
        self._names = [f"category {number}" for number in range(len(table.predicted))]
        self._best = table.predicted.argmax(axis=1)

    def run(self, counts_from_s: float) -> Tally:
        """Serves all arrivals; changes before `counts_from_s` are not counted."""
        self._counts_from_s = counts_from_s
        times = self._arrivals.at_s.tolist()
        self._look(times[0])
        for request, now_s in enumerate(times):
            while self._events and self._events[0][0] <= now_s:
                self._event()
            self._arrive(request, now_s)
            if now_s - self._looked_at_s >= LOOK_EVERY_S:
                self._look(now_s)
        while self._events:
            self._event()
        return self.tally

    def _event(self) -> None:
        at_s, kind, number = heapq.heappop(self._events)
        if kind == 0:
            self._scheduler.finished(at_s)
            self._admit(at_s)
            for each in range(len(self._queues)) if self._stalls else (number,):
                self._fill(each, at_s)
            self._look(at_s)
        else:
            self._busy[number] -= 1
            self._scheduler.ended(self._table.experts[number])
            self._fill(number, at_s)
            if self._scheduler.goal is not None and self._scheduler.under_way is None:
                self._look(at_s)

    def _arrive(self, request: int, now_s: float) -> None:
        if self._scheduler.mask.any() and not self._on_demand:
            self._place(request, now_s)
            return
        number = int(self._best[self._arrivals.category[request]])
        if self._on_demand:
            self._note(request, number, now_s)
        if self._scheduler.mask[number]:
            self._start(request, number, now_s)
            return
        if self._scheduler.ask(now_s, self._table.experts[number]):
            self._parked.append((request, number))
        if self._scheduler.under_way is None:
            self._look(now_s)

    def _admit(self, now_s: float) -> None:
        """Ends the wait of those whose engine is awake and, unless on demand, of all as soon as any is, as in the
        gateway: the best of those awake then answers."""
        parked, self._parked = self._parked, []
        for request, number in parked:
            if self._scheduler.mask[number]:  # the scheduler has counted it as started
                if not self._on_demand:
                    self._note(request, number, now_s)
                self._queues[number].append(request)
            elif self._on_demand or not self._scheduler.mask.any():
                self._parked.append((request, number))
            else:
                self._scheduler.gave_up(self._table.experts[number])
                self._place(request, now_s)

    def _place(self, request: int, now_s: float) -> None:
        quality = self._table.predicted[self._arrivals.category[request]]
        number = int(np.where(self._scheduler.mask, quality, -1.0).argmax())
        self._note(request, number, now_s)
        self._start(request, number, now_s)

    def _start(self, request: int, number: int, now_s: float) -> None:
        self._scheduler.started(self._table.experts[number])
        self._queues[number].append(request)
        self._fill(number, now_s)

    def _note(self, request: int, number: int, now_s: float) -> None:
        category = self._arrivals.category[request]
        self._scheduler.note(now_s, self._names[category], self._table.predicted[category])
        self.tally.served[request] = number

    def _fill(self, number: int, now_s: float) -> None:
        queue, awake = self._queues[number], self._scheduler.states[self._table.experts[number]] is Residency.AWAKE
        if self._stalls and self._scheduler.under_way is not None:
            return
        while queue and awake and self._busy[number] < SLOTS:
            request = queue.popleft()
            self.tally.wait_s[request] = now_s - self._arrivals.at_s[request]
            self._busy[number] += 1
            end_s = now_s + self._seconds[number] * self._arrivals.work[request]
            heapq.heappush(self._events, (end_s, 1, number))

    def _look(self, now_s: float) -> None:
        self._looked_at_s = now_s
        step = self._scheduler.step(now_s)
        if step is None:
            return
        number = self._scheduler.index[step.resident]
        took_s = self._took_s(step, number)
        if now_s >= self._counts_from_s:
            self._count(step, self._scheduler.goal, took_s)
        heapq.heappush(self._events, (now_s + took_s, 0, number))

    def _took_s(self, step: Step, number: int) -> float:
        times = self._scheduler.residents[number].times
        if step.state is Residency.AWAKE:
            return times.wake_s(self._scheduler.states[step.resident])
        return times.sleep_s(step.state)

    def _count(self, step: Step, goal: Goal | None, took_s: float) -> None:
        self.tally.switch_s += took_s
        if step.state is Residency.AWAKE and goal is not None:
            self.tally.switches += 1
            self.tally.reasons[goal.reason] = self.tally.reasons.get(goal.reason, 0) + 1
