"""Policies to compare `regret` with: three evictions, somebody who knows the mix of requests, and a
plan by somebody who knows every arrival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.residency_arrivals import RATE_S, Arrivals
from benchmarks.residency_clairvoyant import WINDOW_S, BoolArray
from coe.fleet.residency.demand import Demand, Float64Array
from coe.fleet.residency.scheduler import Goal, ResidencyPolicy, Scheduler
from coe.fleet.residency.types import Residency


class OnDemand(ResidencyPolicy):
    """Every request gets the best engine of all, which is woken for it, first come first served; the engine used least
    recently makes room."""

    def __init__(self, n_residents: int) -> None:
        self._used_s = np.full(n_residents, -np.inf)

    def note(self, now_s: float, category: str, quality: Float64Array, begins: bool | None) -> None:
        self._used_s[quality.argmax()] = now_s

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        asleep = np.array([view.states[each.name] is not Residency.AWAKE for each in view.residents])
        age_s = np.minimum(now_s - self._used_s, 1e12)
        return np.where(asleep, 0.0, 1.0 / (1.0 + age_s))


class ExpectedUse(OnDemand):
    """Evicts the engine whose categories are expected least (decaying mean of requests by category)."""

    def __init__(self, n_residents: int, memory_s: float) -> None:
        super().__init__(n_residents)
        self._m, self._demand = n_residents, Demand(n_residents, memory_s)

    def note(self, now_s: float, category: str, quality: Float64Array, begins: bool | None) -> None:
        self._demand.note(now_s, category, quality)

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        weights, rows = self._demand.rows(now_s)
        used = np.bincount(rows.argmax(axis=1), weights=weights, minlength=self._m) if len(rows) else np.zeros(self._m)
        return np.where(view.mask, used + 1e-9, 0.0)


class FarthestNextUse(OnDemand):
    """Evicts the engine that is needed again last (clairvoyant)."""

    def __init__(self, needed_at_s: Sequence[Float64Array]) -> None:
        super().__init__(len(needed_at_s))
        self._needed_at_s = needed_at_s

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        found = np.zeros(len(self._needed_at_s))
        for number, times in enumerate(self._needed_at_s):
            place = int(np.searchsorted(times, now_s, side="right"))
            if view.mask[number]:
                found[number] = 1 / (1 + (times[place] - now_s if place < len(times) else 1e12))
        return found


class TrueMix(Demand):
    """The rates that arrivals are drawn with now, by category, instead of requests that came. No arrival is known, nor
    how the rates go on."""

    def __init__(self, arrivals: Arrivals, quality: Float64Array, memory_s: float) -> None:
        super().__init__(quality.shape[1], memory_s)
        self._arrivals, self._quality = arrivals, quality

    def rows(self, now_s: float) -> tuple[Float64Array, Float64Array]:
        place = int((now_s - self._arrivals.rates_from_s) / RATE_S)
        return self.memory_s * self._arrivals.rates[min(place, len(self._arrivals.rates) - 1)], self._quality


class Plan(ResidencyPolicy):
    """Keeps a set for each window awake. `sets` (w, m), the first window beginning at `from_s`."""

    def __init__(self, sets: BoolArray, from_s: float) -> None:
        self._sets, self._from_s = sets, from_s

    def _wanted(self, now_s: float) -> BoolArray:
        window = int((now_s - self._from_s) / WINDOW_S)
        return np.asarray(self._sets[min(max(window, 0), len(self._sets) - 1)])

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        awake = np.array([view.states[each.name] is Residency.AWAKE for each in view.residents])
        return np.where(self._wanted(now_s), 1e6, np.where(awake, 1.0, 1e3))

    def goal(self, now_s: float, view: Scheduler) -> Goal | None:
        for number in np.flatnonzero(self._wanted(now_s)):
            name = view.residents[number].name
            if view.states[name] is not Residency.AWAKE and not view.is_failing(name, now_s):
                return view.goal_of(name, now_s, "planned")
        return None
