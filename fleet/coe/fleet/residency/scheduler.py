"""The engines that are awake, one change at a time, as a policy wants it. Pure: no IO, and `now_s` is passed in.

`Scheduler` keeps what no policy may break: memory is never exceeded, pinned engines stay awake, and an engine is only
put to sleep once its last request has ended. Its driver asks `step` for the next change, makes it, and says `finished`
or `failed`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.fleet.residency.demand import Float64Array
from coe.fleet.residency.memory import Memory, Resident, sleep_state
from coe.fleet.residency.types import ABSENT, SLEEPS, Residency

HOLD_CYCLES = 2.0
"""An engine that was woken stays awake for so many times its cycle (ours)."""

FIRST_RETRY_S = 10.0
LAST_RETRY_S = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """One change of state."""

    resident: str
    state: Residency


@dataclass(frozen=True, slots=True)
class Goal:
    """An engine to wake, what makes room for it, and why."""

    wakes: str
    releases: tuple[Step, ...] = ()
    reason: str = "asked"


class ResidencyPolicy:
    """Decides what is worth a change: by itself nothing, so that only what is asked for or pinned is woken."""

    def note(self, now_s: float, category: str, quality: Float64Array, begins: bool | None) -> None:
        """A request of a category with predicted quality (m,)."""

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        """(m,) what is lost if an engine is put a step further from awake: the least is put away first."""
        return np.zeros(len(view.residents))

    def goal(self, now_s: float, view: Scheduler) -> Goal | None:
        """The next change worth making; None while there is nothing to do."""
        return None


class Scheduler:
    """States of engines that share memory.

    Args:
        states: at the start; those left out are stopped.
        hold_cycles: see `HOLD_CYCLES`.

    Raises:
        ValueError: states, or pinned engines, exceed the memory.
    """

    def __init__(
        self,
        residents: Sequence[Resident],
        memory: Memory,
        policy: ResidencyPolicy,
        states: Mapping[str, Residency] | None = None,
        *,
        hold_cycles: float = HOLD_CYCLES,
    ) -> None:
        self.residents, self.memory, self.policy = tuple(residents), memory, policy
        self.index = {each.name: number for number, each in enumerate(residents)}
        self.states = dict.fromkeys(self.index, Residency.STOPPED) | dict(states or {})
        self._running = dict.fromkeys(self.index, 0)
        self._held_until_s = dict.fromkeys(self.index, 0.0)
        self._failures: dict[str, tuple[int, float]] = {}
        self._kept = {name for name, state in self.states.items() if state is Residency.SLEEP_1}  # pinned host memory
        self._asked: dict[str, float] = {}
        self._waiting: dict[str, int] = {}  # apart from those running, for which an engine to put away is waited for
        self.let_in = dict.fromkeys(self.index, 0)
        """Number of times that those who waited for an engine were let in; they count as running from then on."""
        self._hold_cycles = hold_cycles
        self.goal: Goal | None = None
        self.under_way: Step | None = None
        self._check_start()
        self._refresh()

    def _check_start(self) -> None:
        pins = {each.name: Residency.AWAKE if each.is_pinned else Residency.STOPPED for each in self.residents}
        for what, states in (("engines that are awake or asleep", self.states), ("pinned engines", pins)):
            if excess := self.memory.excess_gib(self.residents, states):
                device, gib = next(iter(excess.items()))
                raise ValueError(
                    f"{what} need {self.memory.device_gib[device] + gib:.1f} GiB on device {device}; allowed: at most "
                    f"{self.memory.device_gib[device]:.1f}"
                )

    def is_failing(self, name: str, now_s: float) -> bool:
        return name in self._failures and now_s < self._failures[name][1]

    def note(self, now_s: float, category: str, quality: Float64Array, begins: bool | None = None) -> None:
        """Tells the policy of a request."""
        self.policy.note(now_s, category, quality, begins)

    def started(self, name: str) -> None:
        """A request is with an engine; follow it with `ended`."""
        self._running[name] += 1

    def ended(self, name: str) -> None:
        self._running[name] -= 1

    def ask(self, now_s: float, name: str) -> bool:
        """A request waits for an engine that is not awake, until it is `let_in` and counts as started, or until it
        `is_asked` no more. Returns False where it cannot be woken: it fails, or what is kept awake leaves no room."""
        if self.is_failing(name, now_s) or not self._could_fit(name):
            return False
        self._asked.setdefault(name, now_s)
        self._waiting[name] = self._waiting.get(name, 0) + 1
        return True

    def is_asked(self, name: str) -> bool:
        return name in self._asked

    def gave_up(self, name: str) -> None:
        """A request waits no longer for an engine that is still not awake."""
        if self._waiting.get(name, 0) > 1:
            self._waiting[name] -= 1
        else:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._asked.pop(name, None)
        self._waiting.pop(name, None)

    def _could_fit(self, name: str) -> bool:
        kept = {each.name for each in self.residents if each.is_pinned}
        states = {each: Residency.AWAKE if each in {*kept, name} else Residency.STOPPED for each in self.index}
        return not self.memory.excess_gib(self.residents, states)

    def step(self, now_s: float) -> Step | None:
        """The change to begin now; None while one is under way, while requests of an engine to put away still run, or
        where there is nothing to do."""
        if self.under_way is not None:
            return None
        if self.goal is None:
            self.goal = self._next_goal(now_s)
            self._refresh()
        if self.goal is None:
            return None
        for release in self.goal.releases:
            if self.states[release.resident] is not release.state:
                if self._running[release.resident]:
                    return None
                return self._begin(release)
        if self.memory.excess_gib(self.residents, {**self.states, self.goal.wakes: Residency.AWAKE}):
            self.goal = None  # an engine was observed in another state than it was left in
            self._refresh()
            return None
        return self._begin(Step(self.goal.wakes, Residency.AWAKE))

    def _next_goal(self, now_s: float) -> Goal | None:
        for each in self.residents:
            is_missing = each.is_pinned and self.states[each.name] is not Residency.AWAKE
            if is_missing and not self.is_failing(each.name, now_s):
                found = self.goal_of(each.name, now_s, "pinned", ignores_hold=True)
                if found is not None:
                    return found
        for name in sorted(self._asked, key=self._asked.__getitem__):
            if self.is_failing(name, now_s) or not self._could_fit(name):
                self._forget(name)
            elif (found := self.goal_of(name, now_s, "asked")) is not None:
                return found
        return self.policy.goal(now_s, self)

    def goal_of(
        self,
        name: str,
        now_s: float,
        reason: str,
        missed: Float64Array | None = None,
        *,
        ignores_hold: bool = False,
    ) -> Goal | None:
        """The goal of waking an engine, with those put away for it that would be missed least per GiB; None where those
        that may be put away now leave too little room.

        Args:
            missed: (m,) what is lost if an engine is put a step further from awake, infinite where it may not be; the
                policy's own if None.
        """
        states = dict(self.states) | {name: Residency.AWAKE}
        excess = self.memory.excess_gib(self.residents, states)
        if not excess:
            return Goal(name, reason=reason)
        missed = self.policy.missed(now_s, self) if missed is None else missed
        releases: list[Step] = []
        while excess:
            found = self._least_missed(name, now_s, states, excess, missed, ignores_hold)
            if found is None:
                return None
            releases.append(found)
            states[found.resident] = found.state
            excess = self.memory.excess_gib(self.residents, states)
        return Goal(name, self._needed(name, releases), reason)

    def _least_missed(
        self,
        name: str,
        now_s: float,
        states: dict[str, Residency],
        excess: Mapping[str, float],
        missed: Float64Array,
        ignores_hold: bool,
    ) -> Step | None:
        host_free_gib = self.memory.host_free_gib(self.residents, states, self._kept)
        best, least = None, np.inf
        for number, each in enumerate(self.residents):
            state = states[each.name]
            is_gone = state in ABSENT  # one that starts may sleep once it is awake
            if each.name == name or is_gone or not self._may_sleep(each, now_s, ignores_hold):
                continue
            own_gib = each.host_gib if each.name in self._kept else 0.0
            target = sleep_state(each, host_free_gib + own_gib) if state is Residency.AWAKE else Residency.STOPPED
            if state is Residency.AWAKE and each.device_gib(target) >= each.device_gib(state):
                target = Residency.STOPPED
            freed_gib = each.device_gib(state) - each.device_gib(target)
            useful_gib = sum(min(freed_gib * each.devices.count(device), gib) for device, gib in excess.items())
            if useful_gib > 0 and missed[number] / useful_gib < least:
                best, least = Step(each.name, target), missed[number] / useful_gib
        return best

    def _may_sleep(self, resident: Resident, now_s: float, ignores_hold: bool) -> bool:
        is_held = now_s < self._held_until_s[resident.name] and not ignores_hold
        return not (resident.is_pinned or is_held or self.is_failing(resident.name, now_s))

    def must_stay(self, now_s: float) -> NDArray[np.bool_]:
        """(m,) the engines that serve and may not be put to sleep now."""
        may_sleep = [self._may_sleep(each, now_s, False) for each in self.residents]
        return np.asarray(self.mask & ~np.array(may_sleep, dtype=bool))

    def _needed(self, name: str, releases: Sequence[Step]) -> tuple[Step, ...]:
        """Leaves out what later releases made needless, the most missed of them first, and lets an engine sleep that
        need not be stopped; one that is put to sleep and then stopped is stopped at once."""
        last = {each.resident: each for each in releases}
        first = {each.resident: each for each in reversed(releases)}
        for step in reversed(list(last.values())):
            kept = {key: each.state for key, each in last.items() if key != step.resident}
            others, milder = {**self.states, **kept, name: Residency.AWAKE}, first[step.resident]
            if not self.memory.excess_gib(self.residents, others):
                del last[step.resident]
            elif not self.memory.excess_gib(self.residents, {**others, step.resident: milder.state}):
                last[step.resident] = milder
        return tuple(last.values())

    def _begin(self, step: Step) -> Step:
        self.under_way = step
        self._refresh()
        return step

    def finished(self, now_s: float) -> None:
        """The change under way is made."""
        step = self._end_step()
        before = self._enter(step.resident, step.state)
        self._failures.pop(step.resident, None)
        if step.state is Residency.AWAKE:
            resident = self.residents[self.index[step.resident]]
            self._change(replace(resident, passed=resident.passed | {before}))
            times = resident.times
            self._held_until_s[step.resident] = now_s + self._hold_cycles * min(times.cycle_s(s) for s in SLEEPS)
            self.goal = None
        self._refresh()

    def failed(self, now_s: float, state: Residency) -> None:
        """The change under way was not made, and this is the state now. The engine is left alone for a while, longer
        each time; but one whose process ended while it woke is started at once, who waits for it still does, and it is
        not put to sleep in that way again."""
        step = self._end_step()
        times, before = self._failures.get(step.resident, (0, 0.0))[0], self._enter(step.resident, state)
        has_ended = step.state is Residency.AWAKE and before in SLEEPS and state in ABSENT
        if has_ended:
            resident = self.residents[self.index[step.resident]]
            self._change(replace(resident, failed=resident.failed | {before}))
        if not has_ended or times:
            self._failures[step.resident] = (times + 1, now_s + min(FIRST_RETRY_S * 2**times, LAST_RETRY_S))
            self._forget(step.resident)
        self.goal = None
        self._refresh()

    def observed(self, name: str, state: Residency) -> None:
        """The state of an engine as it was found, where nothing changes it just now."""
        if self.under_way is None or self.under_way.resident != name:
            self._enter(name, state)
            self._refresh()

    def measured(self, name: str, **seconds: float) -> None:
        """Times of an engine as they were measured, by field of `TransitionTimes`."""
        resident = self.residents[self.index[name]]
        self._change(replace(resident, times=replace(resident.times, **seconds)))

    def _change(self, changed: Resident) -> None:
        number = self.index[changed.name]
        self.residents = (*self.residents[:number], changed, *self.residents[number + 1 :])

    def _enter(self, name: str, state: Residency) -> Residency:
        """The state before."""
        before, self.states[name] = self.states[name], state
        if state is Residency.SLEEP_1:
            self._kept.add(name)
        elif state in ABSENT:
            self._kept.discard(name)
        return before

    def _end_step(self) -> Step:
        if self.under_way is None:
            raise ValueError("no change of state is under way")
        step, self.under_way = self.under_way, None
        return step

    def _refresh(self) -> None:
        """Works out who takes requests, `serving`, and the same as a mask (m,); lets who waited for them start."""
        awake = {name for name, state in self.states.items() if state is Residency.AWAKE}
        leaving = () if self.goal is None else (each.resident for each in self.goal.releases)
        self.serving = frozenset(awake.difference(leaving))
        for name in self.serving.intersection(self._waiting):
            self._running[name] += self._waiting[name]
            self.let_in[name] += 1
            self._forget(name)
        self.mask = np.array([each.name in self.serving for each in self.residents], dtype=bool)
