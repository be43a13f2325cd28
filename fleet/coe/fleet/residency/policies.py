"""The policy of a scheduler. Pure.

Shapes: m residents, r rows of remembered requests.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coe.fleet.residency.demand import Demand, Float64Array
from coe.fleet.residency.memory import Resident
from coe.fleet.residency.scheduler import Goal, ResidencyPolicy, Scheduler
from coe.fleet.residency.sets import BoolArray, best_of, losses, set_with
from coe.fleet.residency.types import Residency

MOST_TRIED = 4
"""Engines whose sets are worked out at each look, those of the largest accounts."""

LOOKS = 60
"""In `memory_s`, so often engines are judged; what is expected changes little in between."""

LEAST_GAIN = 1e-6
"""Quality of one request, below which an account is nothing but rounding."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of an account: chosen on tables and arrivals apart from those that benchmarks/residency.py reports.

    Args:
        memory_s: a loss so long ago counts 1/e.
        wait_price: quality that a second of a request's waiting is worth.
    """

    memory_s: float = 1800.0
    wait_price: float = 0.001


class Regret(ResidencyPolicy):
    """Wakes an engine when the predicted quality that recent requests lost because it was not awake exceeds the price
    of its wake (ski rental).

    What is judged is the set of engines awake after the change: those that stay are the ones that recent requests gain
    most by, and where room is left others are counted with it. An account is the gain of that set over the engines
    awake now, for the requests of `memory_s`, older ones counting less. The price is what the change itself costs:
    quality that requests of its victims lose while it lasts, and the waiting of requests that arrive meanwhile, half
    of it each.
    """

    def __init__(self, residents: tuple[Resident, ...], options: Terms = Terms()) -> None:
        self._options = options
        self.demand = Demand(len(residents), options.memory_s)
        self._looked_at_s = -np.inf

    def note(self, now_s: float, category: str, quality: Float64Array, begins: bool | None) -> None:
        self.demand.note(now_s, category, quality, begins)

    def missed(self, now_s: float, view: Scheduler) -> Float64Array:
        weights, rows = self.demand.rows(now_s)
        later = self._later(weights, rows, view.mask, view)
        return np.where(view.mask, losses(view.mask, weights, rows), later)

    def goal(self, now_s: float, view: Scheduler) -> Goal | None:
        if now_s - self._looked_at_s < self._options.memory_s / LOOKS:
            return None
        self._looked_at_s = now_s
        weights, rows = self.demand.rows(now_s)
        if not len(weights):
            return None
        found, most = None, 0.0
        accounts = weights @ np.maximum(rows - best_of(rows, view.mask)[:, None], 0.0)
        for number in np.argsort(-accounts)[:MOST_TRIED]:
            is_coming = view.states[view.residents[number].name] in (Residency.AWAKE, Residency.STARTING)
            if is_coming or accounts[number] <= LEAST_GAIN:
                continue
            judged = self._judged(number, now_s, weights, rows, view, most)
            if judged is not None and (surplus := judged[1] - judged[2]) > most:
                found, most = judged[0], surplus
        return found

    def _judged(
        self,
        number: int,
        now_s: float,
        weights: Float64Array,
        rows: Float64Array,
        view: Scheduler,
        least: float,
    ) -> tuple[Goal, float, float] | None:
        """The goal of waking an engine, its account and its price; None where no room can be made for it, or where its
        account is not above `least`."""
        after = set_with(number, now_s, weights, rows, view)
        if after is None or view.is_failing(view.residents[number].name, now_s):
            return None
        best = best_of(rows, view.mask)
        gain = float(weights @ (best_of(rows, after) - best))
        if gain <= least:
            return None
        later = self._later(weights, rows, after, view)
        goal = view.goal_of(view.residents[number].name, now_s, "regret", np.where(after, np.inf, later))
        if goal is None:
            return None
        releases = [(view.index[each.resident], each.state) for each in goal.releases]
        sleep_s = sum(view.residents[i].times.sleep_s(state) for i, state in releases)
        stopped = sum(later[i] for i, state in releases if state is Residency.STOPPED)
        serving, price = view.mask & after, 0.0
        for woken in (number, *np.flatnonzero(after & ~view.mask & (np.arange(len(after)) != number))):
            took_s = sleep_s + view.residents[woken].times.wake_s(view.states[view.residents[woken].name])
            lost = max(float(weights @ (best - best_of(rows, serving))), 0.0)
            waited = self._options.wait_price * weights.sum() * took_s / 2
            price += (lost + waited) * took_s / self._options.memory_s
            serving[woken], sleep_s = True, 0.0
        return goal, gain - float(stopped), price

    def _later(self, weights: Float64Array, rows: Float64Array, awake: BoolArray, view: Scheduler) -> Float64Array:
        """(m,) what it costs to have stopped an engine that is not awake: its requests wait so much longer for it."""
        lost = weights @ np.maximum(rows - best_of(rows, awake)[:, None], 0.0)
        longer_s = [each.times.cold_start_s - each.times.wake_s(view.states[each.name]) for each in view.residents]
        return np.asarray(lost * np.maximum(longer_s, 0.0) / self._options.memory_s)
