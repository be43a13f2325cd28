"""One run of a policy on a simulated host, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.residency_arrivals import Arrivals, IntArray
from benchmarks.residency_clairvoyant import WINDOW_S, BoolArray, best_plan
from benchmarks.residency_host import Host, equal_slots, first_states, host_of, static_set
from benchmarks.residency_rivals import ExpectedUse, FarthestNextUse, OnDemand, Plan, TrueMix
from benchmarks.residency_tables import Table
from coe.fleet.residency.demand import Float64Array
from coe.fleet.residency.memory import Memory, Resident
from coe.fleet.residency.policies import Regret, Terms
from coe.fleet.residency.scheduler import HOLD_CYCLES, ResidencyPolicy, Scheduler

MOST_SWITCHES = 2.0
"""Of a clairvoyant plan, in 1,000 requests."""

ENOUGH_REQUESTS = 20
"""Of a category, for its loss to count among the worst."""

OPTIONS = Terms()

INFORMED = replace(OPTIONS, memory_s=3600.0)
"""Of who is told the mix and need not remember it: an account of an hour, chosen on seeds from 100 on."""

ON_DEMAND = ("lru", "expected use", "farthest next use")


@dataclass(frozen=True)
class Scenario:
    """A world of requests and the host that serves them.

    Args:
        clients: how many of the trace's; None: all that are present.
        by_frequency: a client's category is drawn as often as it is in the table's prompts; otherwise with equal odds.
        switch_s: None: unequal sizes and published times; otherwise equal slots with this time of a switch.
        days: counted, after `WARM_DAYS` unless it starts cold.
    """

    clients: int | None = None
    by_frequency: bool = False
    drifts: bool = False
    starts_cold: bool = False
    stalls: bool = False
    switch_s: float | None = None
    days: float = 0.5
    policies: tuple[str, ...] = ("regret", "static", "informed", "clairvoyant", "all awake")


@dataclass(frozen=True)
class Case:
    """One table, host and draw of arrivals; figures count from `from_s` on.

    Args:
        odds: (k,) of a client's category, for which the static set is solved.
    """

    table: Table
    fits: float
    arrivals: Arrivals
    from_s: float
    odds: Float64Array
    scenario: Scenario

    def host(self) -> tuple[tuple[Resident, ...], Memory]:
        if self.scenario.switch_s is None:
            return host_of(self.table, self.fits)
        return equal_slots(self.table, self.fits, self.scenario.switch_s)

    def category(self) -> IntArray:
        """(n,) of the requests that count."""
        return self.arrivals.category[self.arrivals.at_s >= self.from_s]

    def counts(self) -> Float64Array:
        """(w, k) requests by window from `from_s` on."""
        at_s = self.arrivals.at_s[self.arrivals.at_s >= self.from_s]
        window = ((at_s - self.from_s) / WINDOW_S).astype(int)
        found = np.zeros((int(window.max()) + 1, len(self.odds)))
        np.add.at(found, (window, self.category()), 1)
        return found


Made = Callable[[Case, tuple[Resident, ...], Memory, BoolArray], ResidencyPolicy]


def static(case: Case, residents: tuple[Resident, ...], memory: Memory, first: BoolArray) -> ResidencyPolicy:
    """Changes nothing; after a cold start it wakes its set, and no other."""
    if not case.scenario.starts_cold:
        return ResidencyPolicy()
    kept = static_set(case.table, residents, memory.device_gib["0"], case.odds)
    return Plan(np.array([[each.name in kept for each in residents]]), case.from_s)


def regret(case: Case, residents: tuple[Resident, ...], memory: Memory, first: BoolArray) -> ResidencyPolicy:
    return Regret(residents, OPTIONS)


def informed(case: Case, residents: tuple[Resident, ...], memory: Memory, first: BoolArray) -> ResidencyPolicy:
    """`regret` that knows the present mix of requests."""
    policy = Regret(residents, INFORMED)
    policy.demand = TrueMix(case.arrivals, case.table.predicted, INFORMED.memory_s)
    return policy


def clairvoyant(case: Case, residents: tuple[Resident, ...], memory: Memory, first: BoolArray) -> ResidencyPolicy:
    counts = case.counts()
    most = MOST_SWITCHES * counts.sum() / 1000
    return Plan(best_plan(counts, case.table.predicted, residents, memory, first, most), case.from_s)


def farthest(case: Case, residents: tuple[Resident, ...], memory: Memory, first: BoolArray) -> ResidencyPolicy:
    needs = case.table.predicted.argmax(axis=1)[case.arrivals.category]
    return FarthestNextUse([case.arrivals.at_s[needs == number] for number in range(len(residents))])


POLICIES: Mapping[str, Made] = {
    "regret": regret,
    "static": static,
    "static in hindsight": lambda *_: ResidencyPolicy(),
    "informed": informed,
    "clairvoyant": clairvoyant,
    "lru": lambda case, residents, *_: OnDemand(len(residents)),
    "expected use": lambda case, residents, *_: ExpectedUse(len(residents), OPTIONS.memory_s),
    "farthest next use": farthest,
    "all awake": lambda *_: ResidencyPolicy(),
}


def simulate(case: Case, kind: str, make: Made | None = None) -> dict[str, Any]:
    """Figures of a policy on a case. All start with the static set awake, or all with nothing; "in hindsight" with the
    best set for the mix measured."""
    residents, memory = case.host()
    gib = memory.device_gib["0"]
    if kind == "all awake":
        memory = Memory({"0": sum(each.awake_gib for each in residents)}, memory.host_gib)
        awake: tuple[str, ...] = case.table.experts
    else:
        mix = case.counts().sum(axis=0) if kind == "static in hindsight" else case.odds
        awake = () if case.scenario.starts_cold else static_set(case.table, residents, gib, mix)
    states = first_states(residents, memory, awake, starts_cold=case.scenario.starts_cold)
    first = np.array([each.name in awake for each in residents])
    policy = (make or POLICIES[kind])(case, residents, memory, first)
    hold = 0.0 if kind in ON_DEMAND else HOLD_CYCLES
    scheduler = Scheduler(residents, memory, policy, states, hold_cycles=hold)
    host = Host(case.table, scheduler, case.arrivals, on_demand=kind in ON_DEMAND, stalls=case.scenario.stalls)
    tally = host.run(case.from_s)
    counted = case.arrivals.at_s >= case.from_s
    category, served, wait_s = case.category(), tally.served[counted], tally.wait_s[counted]
    n = len(category)
    return {
        "requests": n,
        "switches": 1000 * tally.switches / n,
        "quality": float(case.table.true[category, served].mean()),
        "predicted": float(case.table.predicted[category, served].mean()),
        "wait_s": [float(each) for each in np.percentile(wait_s, [50, 95, 99])],
        "worst_loss": worst_loss(case.table, category, served),
        "switch_s": tally.switch_s,
        "seconds": float(case.arrivals.at_s[-1] - case.from_s),
        "reasons": tally.reasons,
    }


def worst_loss(table: Table, category: np.ndarray[Any, Any], served: np.ndarray[Any, Any]) -> float:
    """Mean quality that requests of the category that loses most lost, against who was predicted to be best of all."""
    ideal = table.predicted.argmax(axis=1)
    lost = table.true[category, ideal[category]] - table.true[category, served]
    k = len(table.predicted)
    n = np.bincount(category, minlength=k)
    return float((np.bincount(category, weights=lost, minlength=k) / np.maximum(n, 1))[n >= ENOUGH_REQUESTS].max())
