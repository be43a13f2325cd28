"""Quality against budgets: the grid of limits, the mixture beside the router, and what both used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.eval.routing.frontier import Budget, budget_grid, build_frontier, known_budgets, limited_policies, mixture
from coe.eval.routing.trial import Trial
from coe.router.config.policy import Budgets
from tests.eval.routing.trial_data import trial, with_costs

SIZES = np.array([10.0, 70.0])


def tried(**changes: object) -> Trial:
    return replace(with_costs(trial(), [0.001, 0.004, 0.009]), **changes)


def test_the_grid_spans_what_can_be_used() -> None:
    grid = budget_grid("active_params_b", SIZES, extra=(31.0, 5.0))
    assert (grid[0], grid[-1], len(grid)) == (10.0, 70.0, 11)
    assert 31.0 in grid
    np.testing.assert_allclose(np.diff(np.log(grid[grid != 31.0])), np.log(7) / 9)
    assert budget_grid("hosted_params_b", SIZES)[-1] == 80.0
    np.testing.assert_allclose(budget_grid("cost_usd", np.array([0.0, 0.9])), np.linspace(0, 0.9, 10))


def test_budgets_are_those_whose_amounts_are_known_and_differ() -> None:
    names = [budget.name for budget in known_budgets(tried())]
    assert names == ["active_params_b", "cost_usd", "hosted_params_b"]
    assert [budget.name for budget in known_budgets(trial())] == ["active_params_b", "hosted_params_b"]
    same = [replace(part, active_params_b=dict.fromkeys(part.experts, 7.0)) for part in (trial().fit, trial().test)]
    assert known_budgets(replace(trial(), fit=same[0], test=same[1])) == []


def test_a_limit_of_the_request_and_every_expert_alone_are_points() -> None:
    sized = known_budgets(tried(budgets=Budgets(active_params_b=11.5)))[0]
    assert {2.0, 7.0, 11.5, 20.0} <= set(sized.limits.tolist())
    limited = limited_policies([sized], with_floor=True)
    floor = limited.pop("quality_floor").quality_floor
    assert (floor.within, floor.of) == (0.01, "best")
    assert {policy.budgets.active_params_b for policy in limited.values()} == set(sized.limits)


def test_the_mixture_is_a_coin_between_two_experts_and_of_hosted_ones_the_best_single() -> None:
    sized, _, hosted = known_budgets(tried())
    assert mixture(tried(), sized, 2.0)[0].tolist() == [1.0, 0.0, 0.0]
    assert mixture(tried(), sized, 4.5)[0] == pytest.approx([0.5, 0.5, 0.0])
    assert [mixture(tried(), hosted, limit)[0].argmax() for limit in (2.0, 7.0, 29.0)] == [0, 1, 1]


def test_points_are_measured_on_test_scores_against_the_mixture() -> None:
    found = tried()
    decided = {budget.name: [np.array([1, 1, 1, 2])] * len(budget.limits) for budget in known_budgets(found)}
    sized = build_frontier(replace(found, limited=decided), np.random.default_rng(0))["active_params_b"]
    first, last = sized["coe"][0], sized["coe"][-1]
    assert (first.budget, first.mean_score) == (2.0, 1.0)
    assert first.amount == pytest.approx(41 / 4)  # more than it may: so much is the rival's too
    assert first.gain.mean == pytest.approx(last.gain.mean) == pytest.approx(0.25)
    assert first.gain.interval[0] >= 0  # it wins or ties on every single query
    assert "quality_floor" not in sized
    floored = replace(found, limited=decided | {"quality_floor": [np.array([0, 1, 1, 2])]})
    [point] = build_frontier(floored, np.random.default_rng(0))["cost_usd"]["quality_floor"]
    assert (point.budget, point.amount, point.mean_score) == (0.01, pytest.approx(0.0045), 0.875)
    cheap = sized["best_mixture"][0]
    assert (cheap.amount, cheap.mean_score, cheap.gain) == (2.0, 0.3125, None)
    hosted = build_frontier(replace(found, limited=decided), np.random.default_rng(0))["hosted_params_b"]
    assert hosted["coe"][0].amount == 27.0  # maths and law serve
    assert build_frontier(found, np.random.default_rng(0)) == {}


def test_costs_on_test_may_differ_from_those_expected() -> None:
    per_query = np.array([[1.0, 5.0], [1.0, 5.0], [1.0, 7.0], [1.0, 9.0]])
    budget = Budget("cost_usd", np.array([4.0]), np.array([1.0, 6.0]), per_query)
    assert budget.used(np.eye(2)[[0, 0, 1, 1]]) == pytest.approx((1 + 1 + 7 + 9) / 4)
