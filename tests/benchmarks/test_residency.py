"""The simulated host of benchmarks/residency.py on a small world whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.residency import won_back
from benchmarks.residency_world import POLICIES, Arrivals, Case, RegretOptions, Table, draw_arrivals, simulate

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
    return Case(TABLE, 1, Arrivals(at_s, np.where(at_s < 1200, 0, 2), np.ones(len(at_s))), from_s=0.0)


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    return {kind: simulate(case(), kind, RegretOptions()) for kind in POLICIES}


def test_regret_follows_the_mix_by_one_switch_and_static_does_not(found: dict[str, dict[str, float]]) -> None:
    assert found["all awake"]["quality"] == found["lru"]["quality"] == pytest.approx(0.9)
    assert found["static"]["quality"] == pytest.approx(0.7)
    lost_s = 900 * np.log(2)  # until most of the remembered requests are of the third category
    assert found["regret"]["quality"] == pytest.approx(0.9 - 0.4 * lost_s / 2400, abs=0.02)
    assert found["regret"]["switches"] == pytest.approx(1000 / 1200)
    assert found["regret"]["worst_loss"] < 0.2 < found["static"]["worst_loss"]


def test_requests_wait_for_an_engine_on_demand_and_never_with_regret(found: dict[str, dict[str, float]]) -> None:
    assert found["lru"]["switches"] == found["farthest next use"]["switches"] == pytest.approx(1000 / 1200)
    assert simulate(case(), "regret", RegretOptions())["wait_s"] == [0.0, 0.0, 0.0]
    assert found["lru"]["switch_s"] > 0


def test_the_share_won_back_is_that_of_the_mean_of_the_tables(found: dict[str, dict[str, float]]) -> None:
    runs = [
        {"table": table, "policy": kind, "seed": seed, "quality": quality}
        for table, gap in (("x", 0.0), ("y", 0.2))
        for seed in (1, 2)
        for kind, quality in (("static", 0.5), ("regret", 0.5 + 0.7 * gap), ("all awake", 0.5 + gap))
    ]
    assert won_back(runs, "static") == (pytest.approx(0.7), pytest.approx(0.7), pytest.approx(0.7))


def test_arrivals_keep_the_rate_and_give_each_client_a_category() -> None:
    at_s = np.arange(0.0, 86400.0, 600.0)
    trace = {name: (at_s, np.stack([np.full(144, rate), np.ones(144)])) for name, rate in (("x", 3.0), ("y", 1.0))}
    drawn = draw_arrivals(trace, TABLE.mass, days=(0, 1), per_s=0.05, clients=2, focus=1.0, drifts=False, seed=3)
    assert len(drawn.at_s) == pytest.approx(0.05 * 86400, rel=0.1)
    assert (np.diff(drawn.at_s) >= 0).all()
    assert len(np.unique(drawn.category)) <= 2
