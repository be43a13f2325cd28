"""Floors of quality: brute force over all maps, ways and choices is the reference."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.base.errors import ConfigError, InfeasibleBudgetError
from coe.gateway.check import floor_lines, resolved_lines
from coe.router.build import MeasuredExperts, solved_policy
from coe.router.config.composition import parse_config
from coe.router.config.policy import Budgets, Floor, PolicyConfig, QualityFloor
from coe.router.policy.map_solver import ExpertCosts, solve_map
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.quality import QualityMatrix, cautious_quality
from coe.router.strategies.agree import StrategyName
from coe.router.strategies.learned import NEVER, Ways
from coe.router.types import GENERAL

K, M = 3, 4
MASS = np.full(K, 1 / K, dtype=np.float32)
shares = st.floats(0, 1, width=32).map(lambda x: round(x, 3))


def costs_of(usd: Any, sizes: Any = (1, 2, 4, 8)) -> ExpertCosts:
    cost = np.broadcast_to(np.float32(usd), (K, M)).copy()
    size = np.float32(sizes)
    nothing = np.zeros(M, np.float32)
    return ExpertCosts(nothing, np.arange(M), nothing, size, cost, np.zeros((K, M), np.float32))


@settings(max_examples=40)
@given(
    quality=arrays(np.float32, (K, M), elements=shares),
    usd=arrays(np.float32, (K, M), elements=st.integers(1, 30).map(float)),
    within=st.floats(0, 0.3),
    size=st.sampled_from([None, 3.0, 5.0]),
)
def test_the_cheapest_map_is_what_brute_force_finds(quality, usd, within, size):
    floor, costs = Floor(float((MASS @ quality).max()), within, "best"), costs_of(usd)
    rows, best = np.arange(K), np.inf
    for choice in itertools.product(range(M), repeat=K):
        used = MASS @ costs.active_params_b[list(choice)]
        if MASS @ quality[rows, choice] >= floor.least - 1e-6 and (size is None or used <= size + 1e-6):
            best = min(best, float(MASS @ usd[rows, choice]))
    budgets = Budgets(active_params_b=size)
    if best == np.inf:
        with pytest.raises(InfeasibleBudgetError):
            solve_map(quality, MASS, costs, budgets, floor=floor)
        return
    found = solve_map(quality, MASS, costs, budgets, floor=floor)
    assert found.used["cost_usd"] == pytest.approx(best, rel=1e-4)
    assert found.quality >= floor.least - 1e-5


QUALITY = np.array([[0.2, 0.5, 0.6, 0.9], [0.7, 0.7, 0.8, 0.8], [0.4, 0.6, 0.5, 0.7]], np.float32)
"""The dearest is best, by 0.2, 0.1 and 0.1 on average over the second."""


def measured(usd: Any = (1, 2, 4, 8), count: float = 400.0) -> MeasuredExperts:
    full = np.full((K, M), count, np.float32)
    small = np.full((K, M), 0.01, np.float32)
    evidence = QualityMatrix(QUALITY, small, full, MASS, np.full(K, 100, np.float32), full, small)
    return MeasuredExperts(("a", "b", "c", "d"), evidence, costs_of(usd), {})


def solved(policy: PolicyConfig, experts: MeasuredExperts | None = None, **given: Any) -> SolvedPolicy:
    arguments = {"choice": None, "ways": None, **given}
    return solved_policy(policy, ("x", "y", GENERAL), experts or measured(), **arguments)


def within(amount: float, of: str, **more: Any) -> PolicyConfig:
    return PolicyConfig(quality_floor=QualityFloor(within=amount, of=of), **more)


@pytest.mark.parametrize(
    ("amount", "of", "experts"),
    [
        (0.0, "d", [3, 2, 3]),
        (0.0, "best", [3, 2, 3]),
        (0.034, "best", [3, 2, 1]),
        (0.21, "best", [1, 0, 1]),
        (0.0, "b", [1, 0, 1]),
        (-0.1, "b", [3, 0, 1]),
        (1.0, "d", [0, 0, 0]),
    ],
)
def test_a_floor_is_below_an_expert_or_the_best_single_one(amount, of, experts):
    assert solved(within(amount, of)).solution.expert_of.tolist() == experts


def test_a_floor_may_be_of_another_policy_and_counts_beside_budgets_and_pins():
    other = solved(PolicyConfig(pins={"x": "b"}))
    mine = solved(within(0.0, "other"), others={"other": other})
    assert mine.floor == Floor(pytest.approx((0.5 + 0.8 + 0.7) / 3), 0.0, "other")
    assert mine.solution.expert_of.tolist() == [3, 0, 0]
    assert solved(within(0.0, "b", pins={"y": "d"})).solution.expert_of.tolist() == [1, 3, 1]
    small = solved(within(0.2, "best", budgets=Budgets(active_params_b=2.0)))
    assert small.solution.expert_of.tolist() == [1, 0, 1]
    assert small.solution.binding == ("quality_floor",)


def test_without_prices_the_cheapest_has_fewest_active_parameters():
    experts = replace_costs(np.zeros(M), sizes=(8, 4, 2, 1))
    assert solved(within(0.0, "b"), experts).solution.expert_of.tolist() == [3, 3, 3]


def replace_costs(usd: Any, sizes: Any) -> MeasuredExperts:
    return measured()._replace(costs=costs_of(usd, sizes))


def test_an_impossible_floor_is_refused_with_the_nearest_possible_one():
    with pytest.raises(
        InfeasibleBudgetError, match=r"quality_floor.within=-0.2 cannot be met; .* do is -0\.1\d+$"
    ) as e:
        solved(within(-0.2, "c"))
    best = float(MASS @ cautious_quality(measured().evidence).max(axis=1))
    assert e.value.smallest == pytest.approx((0.6 + 0.8 + 0.5) / 3 - best, abs=1e-6)
    assert solved(within(e.value.smallest, "c")).solution.quality == pytest.approx(best, abs=1e-5)
    with pytest.raises(
        InfeasibleBudgetError, match=r"within=0.01 cannot be met; the smallest value that would do is 0.2"
    ):
        solved(within(0.01, "d", budgets=Budgets(active_params_b=2.0)))
    with pytest.raises(ConfigError, match="has not measured 'e'; allowed: a, b, c, d"):
        solved(within(0.0, "e"))


def test_a_lead_that_errors_explain_is_not_part_of_what_a_plan_has():
    """The target is measured by the same caution, so serving the expert itself always keeps its floor."""
    full = np.full((K, M), 0.2, np.float32)
    doubtful = measured()
    doubtful = doubtful._replace(evidence=replace(doubtful.evidence, stderr=full))
    for name in doubtful.names:
        assert solved(within(0.0, name), doubtful).floor is not None


def test_a_strategy_serves_where_it_is_the_cheapest_of_that_quality():
    asks = np.zeros((K, 1, M), np.float32)
    asks[:, 0, :2], asks[:, 0, 3] = 1.0, 0.1
    cautious = np.array([[0.9], [0.8], [NEVER]], np.float32)
    ways = Ways(np.array([[0, 1, 3]]), np.zeros((K, 1), np.float32), asks, cautious)
    policy = within(0.0, "d", strategy=StrategyName.AGREE)
    found = solved(policy, ways=ways)
    assert found.plan is not None
    assert found.plan.choice_of.tolist() == [4, 4, 3]  # 3.8 USD where the best single one costs 8
    assert found.predicted["quality"] == pytest.approx(0.8)
    assert found.predicted["cost_usd"] == pytest.approx((3.8 + 3.8 + 8) / 3)
    assert solved(within(0.0, "agreeing"), ways=ways, others={"agreeing": found}).floor.target == pytest.approx(0.8)
    more = solved(within(-0.01, "d", strategy=StrategyName.AGREE), ways=replace(ways, cautious=cautious + 0.02))
    assert more.plan.choice_of.tolist()[:2] == [4, 4]  # no map gains: the best one serves where no answers compare
    with pytest.raises(
        InfeasibleBudgetError, match=r"within=-0.5 cannot be met; the smallest value that would do is 0"
    ):
        solved(within(-0.5, "d", strategy=StrategyName.AGREE), ways=ways)


VALUES = {
    "categories": {"x": "one", "general": "the rest"},
    "experts": {
        "small": {"engine": "echo", "model": "echo", "params_b": 1.0},
        "big": {"engine": "echo", "model": "echo", "params_b": 70.0},
    },
    "router": {"encoder": {"kind": "hashing"}, "classifier": {"kind": "logistic"}},
    "policies": {"default": {}, "saver": {"quality_floor": {"within": 0.01, "of": "big"}}},
}


def test_check_shows_the_floor_and_what_the_router_predicts_of_it():
    assert any("saver: the cheapest plan within 1 point of big, budgets" in line for line in resolved_lines(config()))

    [line] = floor_lines({"default": solved(PolicyConfig()), "saver": solved(within(0.21, "best"))})
    assert line == "policy saver: predicted quality 0.600 of the 0.590 asked, at $1,666.67 for 1,000 queries"


def config(**policies: Any):
    return parse_config(VALUES | {"policies": VALUES["policies"] | policies}, file="e.yaml")


@pytest.mark.parametrize(
    ("floor", "message"),
    [
        ({"within": 0.01, "of": "bigg"}, "without a floor: 'bigg'; did you mean 'big'?"),
        ({"within": 0.01, "of": "saver"}, "without a floor: 'saver'"),
        ({"within": 2, "of": "big"}, "policies.more.quality_floor.within"),
        ({"of": "big"}, "policies.more.quality_floor.within"),
    ],
)
def test_a_floor_of_nothing_is_refused(floor, message):
    with pytest.raises(ConfigError) as error:
        config(more={"quality_floor": floor})
    assert message in str(error.value)


def test_a_score_that_predicts_every_query_has_no_floor():
    scored = VALUES | {"router": VALUES["router"] | {"scorer": {"kind": "soft_map"}}}
    with pytest.raises(ConfigError, match="scorer 'soft_map' predicts every query; allowed: scorer 'map'"):
        parse_config(scored, file="e.yaml")
