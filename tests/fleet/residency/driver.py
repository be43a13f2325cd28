"""Engines and a driver for tests of the residency scheduler: a fake clock, and changes that take their time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from coe.fleet.residency.memory import Memory, Resident
from coe.fleet.residency.scheduler import Scheduler, Step
from coe.fleet.residency.types import Residency, published_times


def resident(name: str, awake_gib: float = 20.0, params_b: float = 8.0, **values: object) -> Resident:
    return Resident(name, awake_gib, 2 * params_b, published_times(params_b), (name,), **values)


class Driver:
    """Makes the changes that a scheduler asks for and serves requests of `service_s`; checks what must always hold."""

    def __init__(
        self, scheduler: Scheduler, service_s: float = 2.0, fails: Callable[[Step], bool] | None = None
    ) -> None:
        self.scheduler, self._service_s, self._fails = scheduler, service_s, fails or (lambda step: False)
        self.running = dict.fromkeys(scheduler.index, 0)
        self.waiting: list[str] = []
        self.steps: list[tuple[float, Step]] = []
        self._events: list[tuple[float, int, str]] = []
        self.now_s = 0.0

    def until(self, now_s: float) -> None:
        """Lets time pass, second by second."""
        while self.now_s < now_s:
            self.now_s += 1.0
            while self._events and self._events[0][0] <= self.now_s:
                self._event(*heapq.heappop(self._events))
            self._pump()

    def request(self, category: str, quality: Sequence[float], expert: str | None = None) -> str | None:
        """A request for an expert, by default the best awake; None where none is."""
        predicted = np.array(quality, dtype=float)
        if expert is None:
            if not self.scheduler.mask.any():
                return None
            expert = self.scheduler.residents[int(np.where(self.scheduler.mask, predicted, -1).argmax())].name
        if expert in self.scheduler.serving:
            self.scheduler.started(expert)
            self._serve(expert)
        elif self.scheduler.ask(self.now_s, expert):
            self.waiting.append(expert)
        else:
            return None
        self.scheduler.note(self.now_s, category, predicted)
        self._pump()
        return expert

    def _serve(self, expert: str) -> None:
        assert self.scheduler.states[expert] is Residency.AWAKE
        self.running[expert] += 1
        heapq.heappush(self._events, (self.now_s + self._service_s, 0, expert))

    def _event(self, _: float, kind: int, name: str) -> None:
        if kind == 0:
            self.running[name] -= 1
            self.scheduler.ended(name)
            return
        step = self.scheduler.under_way
        assert step is not None
        if self._fails(step):
            self.scheduler.failed(self.now_s, Residency.STOPPED)
        else:
            self.scheduler.finished(self.now_s)
        self._admit()
        self._check()

    def _pump(self) -> None:
        step = self.scheduler.step(self.now_s)
        if step is not None:
            self._check_step(step)
            self.steps.append((self.now_s, step))
            times = self.scheduler.residents[self.scheduler.index[step.resident]].times
            before = self.scheduler.states[step.resident]
            took_s = times.wake_s(before) if step.state is Residency.AWAKE else times.sleep_s(step.state)
            heapq.heappush(self._events, (self.now_s + took_s, 1, step.resident))
        self._admit()
        self._check()

    def _admit(self) -> None:
        """Serves those whose engine is awake; those whose engine is asked no more get an error."""
        for expert in tuple(self.waiting):
            if expert in self.scheduler.serving or not self.scheduler.is_asked(expert):
                self.waiting.remove(expert)
                if expert in self.scheduler.serving:
                    self._serve(expert)

    def _check_step(self, step: Step) -> None:
        each = self.scheduler.residents[self.scheduler.index[step.resident]]
        if step.state is not Residency.AWAKE:
            assert not each.is_pinned
            assert self.running[step.resident] == 0, "a running request lost its engine"
            assert step.state not in each.failed
        assert step.resident not in self.scheduler.serving

    def _check(self) -> None:
        states = dict(self.scheduler.states)
        step = self.scheduler.under_way
        if step is not None and step.state is Residency.AWAKE:  # takes all its memory from the beginning of the wake
            states[step.resident] = Residency.AWAKE
        memory: Memory = self.scheduler.memory
        assert not memory.excess_gib(self.scheduler.residents, states)
        assert memory.host_free_gib(self.scheduler.residents, self.scheduler.states, self.scheduler._kept) >= -1e-6
