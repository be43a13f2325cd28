"""Policies of a scheduler: `regret`, and `static`, `lru` and `off` to compare it with. Pure.

Shapes: m residents, r rows of remembered requests.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from fleet.residency.demand import CategoryDemand, Demand, Float64Array
from fleet.residency.memory import Resident
from fleet.residency.scheduler import Goal, Outlook, Scheduler
from fleet.residency.types import ANSWERING, Residency

FAIR_LEAD = 0.25
"""Of the fairness bound, how much is left for the change itself and for other categories whose bound ends as well."""

MOST_TRIED = 6
"""Engines whose victims are worked out at each look, those of the largest accounts."""


@dataclass(frozen=True)
class RegretOptions:
    """Settings of `Regret`.

    Args:
        memory_s: what was lost so long ago counts 1/e.
        wait_price: quality that a second of a request's waiting is worth.
        threshold: an account must exceed its price by this factor.
        fairness_s: a category that loses more than its share gets its best engine within so many seconds.
        fair_loss: mean loss of a category's requests from which that holds.
        uses_hours: expect the mix that the coming hour of the day had before.
    """

    memory_s: float = 900.0
    wait_price: float = 0.001
    threshold: float = 1.0
    fairness_s: float = 14400.0
    fair_loss: float = 0.05
    uses_hours: bool = True


class Regret:
    """Wakes an engine when the predicted quality that recent requests lost because it was not awake exceeds the price
    of its wake, and puts away what would be missed least (ski rental).

    An account is the gain of the engines awake after the change over those of now, for the requests of `memory_s`,
    older ones counting less. The price is what the change itself costs: quality that requests of its victims lose
    while it lasts, and the waiting of requests that arrive meanwhile, half of it each.
    """

    def __init__(self, residents: tuple[Resident, ...], now_s: float, options: RegretOptions | None = None) -> None:
        self._options = options or RegretOptions()
        self.demand = Demand(len(residents), self._options.memory_s, now_s, uses_hours=self._options.uses_hours)

    def note(self, now_s: float, category: str, quality: Float64Array, served: int, begins: bool | None) -> None:
        lost = float(quality.max() - quality[served])
        self.demand.note(now_s, category, quality, lost=lost, begins=begins)

    def accounts(self, now_s: float, view: Scheduler) -> Float64Array:
        """(m,) what recent requests lost because an engine was not awake, in quality of one request."""
        weights, rows = self.demand.rows(now_s)
        return np.asarray(weights @ np.maximum(rows - best_of(rows, view.mask)[:, None], 0.0))

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        weights, rows = self.demand.rows(now_s)
        return self._missed(weights, rows, view)

    def _missed(self, weights: Float64Array, rows: Float64Array, view: Scheduler) -> Float64Array:
        best = best_of(rows, view.mask)
        lost = weights @ np.maximum(rows - best[:, None], 0.0)
        for number, each in enumerate(view.residents):
            if view.mask[number]:
                others = view.mask.copy()
                others[number] = False
                lost[number] = weights @ (best - best_of(rows, others))
            else:  # a sleeper that is stopped: its requests would wait so much longer for it
                longer_s = each.times.cold_start_s - each.times.wake_s(view.state(each.name))
                lost[number] *= max(longer_s, 0.0) / self._options.memory_s
        return np.asarray(lost)

    def goal(self, now_s: float, view: Scheduler) -> Goal | None:
        weights, rows = self.demand.rows(now_s)
        if not len(weights):
            return None
        best = best_of(rows, view.mask)
        accounts = weights @ np.maximum(rows - best[:, None], 0.0)
        found, most = self._fair(now_s, view), 0.0
        if found is not None:
            return found
        for number in np.argsort(-accounts)[:MOST_TRIED]:
            name = view.residents[number].name
            if view.mask[number] or view.state(name) in ANSWERING or view.is_failing(name, now_s):
                continue
            price = self._waiting(weights, view.residents[number].times.wake_s(view.state(name)))
            if accounts[number] <= self._options.threshold * price + most:
                continue
            goal = view.goal_of(name, now_s, "regret")
            if goal is not None:
                goal, surplus = self._judged(goal, weights, rows, view)
                if surplus > most:
                    found, most = goal, surplus
        return found

    def outlooks(self, now_s: float, view: Scheduler) -> dict[str, Outlook]:
        weights, rows = self.demand.rows(now_s)
        if not len(weights):
            return {}
        accounts = weights @ np.maximum(rows - best_of(rows, view.mask)[:, None], 0.0)
        found = {}
        for number in np.flatnonzero(accounts > 0):
            name = view.residents[number].name
            goal = view.goal_of(name, now_s, "regret")
            found[name] = Outlook(float(accounts[number]), None)
            if goal is not None:
                goal, _ = self._judged(goal, weights, rows, view)
                if goal.account is not None and goal.price is not None:
                    found[name] = Outlook(goal.account, self._options.threshold * goal.price)
        return found

    def _waiting(self, weights: Float64Array, change_s: float) -> float:
        """Cost of the waiting of those who arrive within a change: half of it each."""
        rate = float(weights.sum()) / self._options.memory_s
        return self._options.wait_price * rate * change_s * change_s / 2

    def _judged(self, goal: Goal, weights: Float64Array, rows: Float64Array, view: Scheduler) -> tuple[Goal, float]:
        """A goal with its account and price, and what it gains above the price times the threshold."""
        before, after, change_s, later = view.mask, view.mask.copy(), 0.0, 0.0
        missed = self._missed(weights, rows, view) if goal.releases else np.zeros(len(view.residents))
        for release in goal.releases:
            number = view.index[release.resident]
            change_s += view.residents[number].times.sleep_s(release.state)
            later += 0.0 if after[number] else float(missed[number])
            after[number] = False
        best = best_of(rows, before)
        change_s += view.residents[view.index[goal.wakes]].times.wake_s(view.state(goal.wakes))
        meanwhile = float(weights @ (best - best_of(rows, after))) * change_s / self._options.memory_s
        after[view.index[goal.wakes]] = True
        account = float(weights @ (best_of(rows, after) - best)) - later
        price = meanwhile + self._waiting(weights, change_s)
        return replace(goal, account=account, price=price), account - self._options.threshold * price

    def _fair(self, now_s: float, view: Scheduler) -> Goal | None:
        """The goal for the category that has lost more than its share for longest, if its bound is near."""
        for category in self._overdue(now_s):
            number = int(category.rows[-1].argmax())
            resident = view.residents[number]
            if view.mask[number] or view.is_failing(resident.name, now_s):
                continue
            found = view.goal_of(resident.name, now_s, "fairness")
            if found is not None:
                dwell_s = FAIR_LEAD * self._options.fairness_s / (2 * len(self.demand.categories))
                view.hold(resident.name, now_s + dwell_s)
                return found
        return None

    def _overdue(self, now_s: float) -> list[CategoryDemand]:
        """Categories whose bound is near, the longest first; notes since when each loses more than its share."""
        found = []
        categories = list(self.demand.categories.values())
        decays = np.exp([(each.at_s - now_s) / self._options.memory_s for each in categories])
        mass = decays * [each.mass for each in categories]
        lost = decays * [each.lost for each in categories]
        mean = lost.sum() / max(mass.sum(), 1e-12)
        for each, one_mass, one_lost in zip(categories, mass, lost, strict=True):
            own = one_lost / max(one_mass, 1e-12)
            if one_mass < 1.0 or own <= max(mean, self._options.fair_loss):
                each.unfair_since_s = None
            elif each.unfair_since_s is None:
                each.unfair_since_s = now_s
            elif now_s - each.unfair_since_s >= (1 - FAIR_LEAD) * self._options.fairness_s:
                found.append(each)
        return sorted(found, key=lambda each: each.unfair_since_s or 0.0)


class Static:
    """The engines of a fixed set are woken; nothing else ever is."""

    def __init__(self, chosen: Collection[str]) -> None:
        self._chosen = frozenset(chosen)

    def note(self, now_s: float, category: str, quality: Float64Array, served: int, begins: bool | None) -> None:
        """A fixed set learns nothing."""

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        return np.array([float(each.name in self._chosen) for each in view.residents])

    def goal(self, now_s: float, view: Scheduler) -> Goal | None:
        for name in sorted(self._chosen):
            if view.state(name) not in ANSWERING and not view.is_failing(name, now_s):
                return view.goal_of(name, now_s, "static")
        return None

    def outlooks(self, now_s: float, view: Scheduler) -> dict[str, Outlook]:
        return {}


class Off(Static):
    """Changes nothing of its own accord."""

    def __init__(self) -> None:
        super().__init__(())


class OnDemand:
    """Every request gets the best engine of all, which is woken for it, first come first served; the engine used least
    recently makes room."""

    def __init__(self, n_residents: int) -> None:
        self._used_s = np.full(n_residents, -np.inf)

    def note(self, now_s: float, category: str, quality: Float64Array, served: int, begins: bool | None) -> None:
        self._used_s[served] = now_s

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        asleep = np.array([view.state(each.name) is not Residency.AWAKE for each in view.residents])
        age_s = np.minimum(now_s - self._used_s, 1e12)
        return np.where(asleep, 0.0, 1.0 / (1.0 + age_s))

    def goal(self, now_s: float, view: Scheduler) -> Goal | None:
        return None

    def outlooks(self, now_s: float, view: Scheduler) -> dict[str, Outlook]:
        return {}


def best_of(rows: Float64Array, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Float64Array:
    """(r,) predicted quality of the best of some residents; 0 where there are none."""
    return np.asarray(rows[:, mask].max(axis=1, initial=0.0))
