"""The simulated host of benchmarks/residency.py on a small world whose truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks.residency import scenario_of, won_back
from benchmarks.residency_arrivals import Arrivals, Draw, draw_arrivals
from benchmarks.residency_clairvoyant import BOUND_PRICES, most_quality, planned, sets_of
from benchmarks.residency_host import host_of
from benchmarks.residency_tables import Table
from benchmarks.residency_world import INFORMED, OPTIONS, POLICIES, Case, Scenario, simulate
from coe.fleet.residency.policies import LOOKS
from coe.fleet.residency.scheduler import ResidencyPolicy

TABLE = Table(
    "small",
    ("a", "b", "c"),
    (8.0, 8.0, 8.0),
    predicted=np.array([[0.9, 0.5, 0.5], [0.5, 0.9, 0.5], [0.5, 0.5, 0.9]]),
    true=np.array([[0.9, 0.5, 0.5], [0.5, 0.9, 0.5], [0.5, 0.5, 0.9]]),
    mass=np.array([0.6, 0.3, 0.1]),
)


def case() -> Case:
    """For 20 minutes queries of the first category, then 20 of the third."""
    at_s = np.arange(0.0, 2400.0, 2.0)
    category = np.where(at_s < 1200, 0, 2)
    rates = 0.5 * np.eye(3)[category[::30]]
    return Case(TABLE, 1, Arrivals(at_s, category, np.ones(len(at_s)), rates), 0.0, TABLE.mass, Scenario())


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    return {kind: simulate(case(), kind) for kind in POLICIES}


def test_regret_follows_the_mix_by_one_switch_and_static_does_not(found: dict[str, dict[str, float]]) -> None:
    assert found["all awake"]["quality"] == found["lru"]["quality"] == pytest.approx(0.9)
    assert found["static"]["quality"] == pytest.approx(0.7)
    memory_s = OPTIONS.memory_s
    seen_s = memory_s * (1 - np.exp(-1200 / memory_s))  # of the first category when the third begins
    lost_s = memory_s * np.log(1 + seen_s / memory_s)  # until most of the remembered requests are of the third
    assert found["regret"]["quality"] == pytest.approx(0.9 - 0.4 * lost_s / 2400, abs=0.02)
    assert found["regret"]["switches"] == pytest.approx(1000 / 1200)
    assert found["regret"]["worst_loss"] < 0.3 < found["static"]["worst_loss"]


@pytest.mark.parametrize(("kind", "late_s"), [("clairvoyant", 0.0), ("informed", INFORMED.memory_s / LOOKS)])
def test_who_knows_the_arrivals_or_the_mix_switches_when_it_changes(
    kind: str, late_s: float, found: dict[str, dict[str, float]]
) -> None:
    assert found[kind]["quality"] == pytest.approx(0.9 - 0.4 * late_s / 2400, abs=0.01)
    assert found[kind]["switches"] == pytest.approx(1000 / 1200)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_plan_gains_more_than_the_clairvoyant_one(seed: int) -> None:
    residents, memory = host_of(TABLE, 1)
    sets = sets_of(TABLE.predicted, residents, memory)
    rng, first, price = np.random.default_rng(seed), np.array([True, False, False]), 0.3
    gains = rng.uniform(size=(4, len(sets.masks)))

    def value(plan: list[int]) -> float:
        masks = [first, *sets.masks[plan]]
        woken = sum(int((after & ~before).sum()) for before, after in itertools.pairwise(masks))
        return float(gains[range(4), plan].sum()) - price * woken

    found = planned(gains, sets, first, np.zeros(3), price)
    number = [int(np.flatnonzero((sets.masks == mask).all(axis=1))[0]) for mask in found]
    plans = itertools.product(range(len(sets.masks)), repeat=4)
    assert value(number) == pytest.approx(max(value(list(plan)) for plan in plans))


@pytest.mark.parametrize("seed", range(3))
def test_no_plan_of_few_wakes_exceeds_its_bound(seed: int) -> None:
    residents, memory = host_of(TABLE, 1)
    masks, quality = sets_of(TABLE.predicted, residents, memory).masks, TABLE.predicted + 0.1 * np.eye(3)[seed]
    category = np.random.default_rng(seed).integers(3, size=5).repeat(4)
    best = {wakes: 0.0 for wakes in range(4)}
    for plan in itertools.product(range(len(masks)), repeat=5):
        woken = sum(int((after & ~before).sum()) for before, after in itertools.pairwise(masks[list(plan)]))
        served = masks[np.repeat(plan, 4)]
        value = np.where(served, quality[category], 0.0).max(axis=1).mean()
        for wakes in range(woken, 4):
            best[wakes] = max(best[wakes], float(value))
    wakes_in_1000 = [1000 * each / len(category) for each in best]
    bound = most_quality(category, quality, residents, memory, wakes_in_1000)
    assert bound[0] == pytest.approx(best[0])
    assert (bound >= np.array(list(best.values())) - 1e-12).all()
    assert bound[-1] <= quality.max(axis=1)[category].mean() + 3 * BOUND_PRICES[0] / len(category)


def test_requests_wait_for_an_engine_on_demand_and_never_with_regret(found: dict[str, dict[str, float]]) -> None:
    assert found["lru"]["switches"] == found["farthest next use"]["switches"] == pytest.approx(1000 / 1200)
    assert found["regret"]["wait_s"] == [0.0, 0.0, 0.0]
    assert found["lru"]["switch_s"] > 0


def test_who_finds_nobody_awake_is_answered_by_the_first_engine_that_is() -> None:
    at_s = np.arange(0.0, 2400.0, 5.0)
    arrivals = Arrivals(at_s, np.arange(len(at_s)) % 3, np.ones(len(at_s)), np.zeros((0, 3)))
    cold = Case(TABLE, 1, arrivals, 0.0, TABLE.mass, Scenario(starts_cold=True))
    found = simulate(cold, "regret", lambda *_: ResidencyPolicy())
    assert found["reasons"] == {"asked": 1}
    assert found["quality"] == pytest.approx(0.5 + 0.4 / 3)
    start_s = host_of(TABLE, 1)[0][0].times.cold_start_s
    assert found["wait_s"] == pytest.approx(np.percentile(np.maximum(start_s - at_s, 0.0), [50, 95, 99]))


def test_the_share_won_back_is_that_of_the_mean_of_the_tables(found: dict[str, dict[str, float]]) -> None:
    runs = [
        {"table": table, "policy": kind, "seed": seed, "quality": quality}
        for table, gap in (("x", 0.0), ("y", 0.2))
        for seed in (1, 2)
        for kind, quality in (("static", 0.5), ("regret", 0.5 + 0.7 * gap), ("all awake", 0.5 + gap))
    ]
    assert won_back(runs) == (pytest.approx(0.7), pytest.approx(0.7), pytest.approx(0.7))


def test_arrivals_keep_the_rate_and_give_each_client_a_category() -> None:
    at_s = np.arange(0.0, 86400.0, 600.0)
    trace = {name: (at_s, np.stack([np.full(144, rate), np.ones(144)])) for name, rate in (("x", 3.0), ("y", 1.0))}
    drawn = draw_arrivals(trace, Draw((0, 1), TABLE.mass, per_s=0.05, clients=2), seed=3)
    assert len(drawn.at_s) == pytest.approx(0.05 * 86400, rel=0.1)
    assert (np.diff(drawn.at_s) >= 0).all()
    assert len(np.unique(drawn.category)) <= 2
    assert 60 * drawn.rates.sum() == pytest.approx(0.05 * 86400)


def test_twenty_clients_can_drift_and_then_change_their_categories_halfway() -> None:
    assert scenario_of("twenty clients + drift") == Scenario(clients=20, drifts=True)
    at_s = np.arange(0.0, 86400.0, 600.0)
    trace = {"x": (at_s, np.ones((2, 144)))}
    drawn = draw_arrivals(trace, Draw((0, 1), np.full(1000, 1e-3), per_s=0.05, drifts=True), seed=3)
    first, later = drawn.category[drawn.at_s <= 43200], drawn.category[drawn.at_s > 43200]
    assert set(first) != set(later)
    assert set(drawn.rates[:721].argmax(axis=1)) == set(first)
    assert set(drawn.rates[721:].argmax(axis=1)) == set(later)
    assert len(set(first)) == len(set(later)) == 1
