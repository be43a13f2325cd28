"""Choosing by predicted quality: margins, prices of budgets, hosted experts on shared bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.config import Budgets
from router.errors import InfeasibleBudgetError
from router.hosting import hosted_on_bases
from router.policy import ExpertCosts
from router.preference import LearnedChoice, reference_expert, solve_preference

MASS = np.array([0.5, 0.5], np.float32)


def costs(active: list[float], own: list[float], group: list[int], bases: list[float]) -> ExpertCosts:
    m = len(active)
    return ExpertCosts(
        own_params_b=np.array(own, np.float32),
        group=np.array(group),
        group_params_b=np.array(bases, np.float32),
        active_params_b=np.array(active, np.float32),
        cost_usd=np.tile(np.array(active, np.float32) / 1000, (2, 1)),
        latency_ms=np.zeros((2, m), np.float32),
    )


SMALL_AND_LARGE = costs([1.0, 10.0], [1.0, 10.0], [0, 1], [0.0, 0.0])


def test_without_a_budget_the_reference_must_be_beaten_by_the_margin() -> None:
    sample = np.array([[0.4, 0.6], [0.5, 0.5], [0.3, 0.8]], np.float32)
    found = solve_preference(LearnedChoice(sample, 0.1), MASS, SMALL_AND_LARGE, Budgets())
    assert found.tolls == pytest.approx([0.1, 0.0])
    assert found.utility(np.array([0.69, 0.6], np.float32)).argmax() == 1
    assert found.utility(np.array([0.71, 0.6], np.float32)).argmax() == 0


@settings(deadline=None, max_examples=40)
@given(st.floats(1.5, 9.5), st.integers(0, 1000))
def test_a_budget_on_an_average_holds_on_the_sample(limit: float, seed: int) -> None:
    sample = np.random.default_rng(seed).random((60, 2)).astype(np.float32)
    budgets = Budgets(active_params_b=limit)
    found = solve_preference(LearnedChoice(sample, 0.3), MASS, SMALL_AND_LARGE, budgets)
    chosen = np.array([found.utility(row).argmax() for row in sample])
    assert np.array([1.0, 10.0])[chosen].mean() <= limit * (1 + 1e-4)


def test_a_budget_below_the_smallest_expert_is_named() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"active_params_b=0.5 .* 1"):
        solve_preference(
            LearnedChoice(np.ones((3, 2), np.float32), 0.0), MASS, SMALL_AND_LARGE, Budgets(active_params_b=0.5)
        )


def test_only_hosted_experts_serve() -> None:
    sample = np.array([[0.4, 0.9], [0.5, 0.8]], np.float32)
    found = solve_preference(LearnedChoice(sample, 0.0), MASS, SMALL_AND_LARGE, Budgets(hosted_params_b=5))
    assert found.hosted.tolist() == [True, False]
    assert found.utility(np.array([0.1, 0.9], np.float32)).tolist() == pytest.approx([0.1, -np.inf])


def test_experts_on_one_base_pay_for_it_once() -> None:
    quality = np.array([[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]])
    own, group, bases = np.array([0.1, 0.1, 0.0]), np.array([0, 0, 1]), np.array([7.0, 7.0])
    assert hosted_on_bases(quality, own, group, bases, 7.2).tolist() == [True, True, False]
    assert hosted_on_bases(quality, own, group, bases, 7.1).tolist() in ([True, False, False], [False, True, False])
    with pytest.raises(InfeasibleBudgetError, match="hosted_params_b"):
        hosted_on_bases(quality, own, group, bases, 6.0)


def test_the_reference_is_the_best_hosted_expert() -> None:
    sample = np.array([[0.4, 0.9, 0.7], [0.5, 0.8, 0.7]])
    assert reference_expert(sample, np.array([True, True, True])) == 1
    assert reference_expert(sample, np.array([True, False, True])) == 2
