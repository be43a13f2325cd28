"""Choosing by predicted quality: margins, prices of budgets, hosted experts on shared bases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.router.config.policy import Budgets
from coe.router.policy.budget_price import budget_price
from coe.router.policy.map_solver import ExpertCosts, solve_map
from coe.router.policy.preference import (
    LearnedChoice,
    Preference,
    amounts_by_row,
    price_with_reserve,
    reference_expert,
    share_of_rows,
    solve_preference,
)
from coe.router.types import FloatArray

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


def in_one_row(sample: FloatArray, margin: float) -> LearnedChoice:
    """A choice whose sample (n, m) was classified as the first row of the map."""
    return LearnedChoice(sample, margin, np.zeros(len(sample), np.int64))


def solved(
    choice: LearnedChoice,
    mass: FloatArray,
    made: ExpertCosts,
    budgets: Budgets,
    pins: Mapping[int, int] | None = None,
) -> Preference:
    """Beside the map of what the sample says of each row."""
    own = [choice.sample[choice.rows == row] for row in range(len(mass))]
    quality = np.array([(part if len(part) else choice.sample).mean(axis=0) for part in own], np.float32)
    expert_of = np.zeros(len(mass), np.int64)
    if len(budgets.averages) < 2:
        expert_of = solve_map(quality, mass, made, budgets, pins).expert_of
    return solve_preference(choice, expert_of, mass, made, budgets, pins)


SMALL_AND_LARGE = costs([1.0, 10.0], [1.0, 10.0], [0, 1], [0.0, 0.0])


def test_without_a_budget_the_reference_must_be_beaten_by_the_margin() -> None:
    sample = np.array([[0.4, 0.6], [0.5, 0.5], [0.3, 0.8]], np.float32)
    found = solved(in_one_row(sample, 0.1), MASS, SMALL_AND_LARGE, Budgets())
    assert found.tolls == pytest.approx([0.1, 0.0])
    assert found.utility(np.array([0.69, 0.6], np.float32), 0).argmax() == 1
    assert found.utility(np.array([0.71, 0.6], np.float32), 0).argmax() == 0


@settings(max_examples=40)
@given(st.floats(1.5, 9.5), st.integers(0, 1000))
def test_a_budget_on_an_average_holds_on_the_sample(limit: float, seed: int) -> None:
    sample = np.random.default_rng(seed).random((60, 2)).astype(np.float32)
    budgets = Budgets(active_params_b=limit)
    found = solved(in_one_row(sample, 0.3), MASS, SMALL_AND_LARGE, budgets)
    chosen = np.array([found.utility(row, 0).argmax() for row in sample])
    assert np.array([1.0, 10.0])[chosen].mean() <= limit * (1 + 1e-4)


def test_a_budget_below_the_smallest_expert_is_named() -> None:
    with pytest.raises(InfeasibleBudgetError, match=r"active_params_b=0.5 .* 1"):
        solved(in_one_row(np.ones((3, 2), np.float32), 0.0), MASS, SMALL_AND_LARGE, Budgets(active_params_b=0.5))


def test_a_budget_that_choices_with_the_margin_keep_changes_nothing() -> None:
    """Without the margin the large expert would take two of three queries, with it all stay at the small one."""
    sample = np.array([[0.55, 0.6], [0.55, 0.6], [0.7, 0.3]], np.float32)
    free = solved(in_one_row(sample, 0.15), MASS, SMALL_AND_LARGE, Budgets())
    for limit in (1.0, 5.0, 9.0):
        found = solved(in_one_row(sample, 0.15), MASS, SMALL_AND_LARGE, Budgets(active_params_b=limit))
        assert found.tolls.tolist() == free.tolls.tolist() == pytest.approx([0.0, 0.15])


def test_prices_take_the_place_of_a_margin_that_exceeds_a_budget() -> None:
    """The reference is the large expert, so the margin leaves it every query; the budget allows it half of them."""
    sample = np.array([[0.5, 0.9], [0.65, 0.6]], np.float32)
    found = solved(in_one_row(sample, 0.1), MASS, SMALL_AND_LARGE, Budgets(active_params_b=5.5))
    assert found.tolls.tolist() == [0.0, 0.0]
    assert [found.utility(row, 0).argmax() for row in sample] == [1, 0]


ONE_SEVEN_SEVENTY = costs([1.0, 7.0, 70.0], [1.0, 7.0, 70.0], [0, 1, 2], [0.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("hosted", "expected"),
    [(71.0, [True, True, False]), (7.0, [True, False, False]), (78.0, [True, True, True])],
)
def test_experts_of_the_map_are_hosted_and_what_fits_beside(hosted: float, expected: list[bool]) -> None:
    """The largest expert is best on every query, but leaves no room for those that keep the mean."""
    sample = np.array([[0.15, 0.5, 0.9], [0.25, 0.5, 0.8]] * 20, np.float32)
    budgets = Budgets(active_params_b=4, hosted_params_b=hosted)
    found = solved(in_one_row(sample, 0.0), MASS, ONE_SEVEN_SEVENTY, budgets)
    assert found.hosted.tolist() == expected
    chosen = np.array([found.utility(row, 0).argmax() for row in sample])
    assert np.array([1.0, 7.0, 70.0])[chosen].mean() <= 4 * (1 + 1e-5)


def test_the_smallest_value_that_would_do_is_that_of_all_experts_that_can_be_hosted() -> None:
    sample = np.array([[0.2, 0.5, 0.9]] * 4, np.float32)
    with pytest.raises(InfeasibleBudgetError, match=r"active_params_b=0.5 cannot be met; .* is 1$"):
        solved(in_one_row(sample, 0.0), MASS, ONE_SEVEN_SEVENTY, Budgets(active_params_b=0.5, hosted_params_b=70))
    without_small = costs([9.0, 7.0, 70.0], [90.0, 7.0, 70.0], [0, 1, 2], [0.0, 0.0, 0.0])
    with pytest.raises(InfeasibleBudgetError, match=r"active_params_b=4 cannot be met; .* is 7$"):
        solved(in_one_row(sample, 0.0), MASS, without_small, Budgets(active_params_b=4, hosted_params_b=70))


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(1, 12), st.floats(1, 20))
def test_whatever_one_expert_keeps_is_kept_also_on_shared_bases(seed: int, active: float, hosted: float) -> None:
    """An expert that alone keeps both limits makes them feasible, and the choice then keeps them on the sample."""
    rng = np.random.default_rng(seed)
    m = 4
    made = costs(
        rng.uniform(1, 12, m).tolist(),
        rng.uniform(0, 3, m).tolist(),
        rng.integers(0, 2, m).tolist(),
        rng.uniform(1, 9, 2).tolist(),
    )
    sizes = made.own_params_b + made.group_params_b[made.group]
    is_kept = (made.active_params_b <= active) & (sizes <= hosted)
    sample = rng.random((30, m)).astype(np.float32)
    budgets = Budgets(active_params_b=active, hosted_params_b=hosted)
    try:
        found = solved(in_one_row(sample, 0.05), MASS, made, budgets)
    except InfeasibleBudgetError:
        assert not is_kept.any()
        return
    assert made.own_params_b[found.hosted].sum() + made.group_params_b[
        np.unique(made.group[found.hosted])
    ].sum() <= hosted * (1 + 1e-5)
    chosen = np.array([found.utility(row, 0).argmax() for row in sample])
    assert made.active_params_b[chosen].mean() <= active * (1 + 1e-4)


def test_only_hosted_experts_serve() -> None:
    sample = np.array([[0.4, 0.9], [0.5, 0.8]], np.float32)
    found = solved(in_one_row(sample, 0.0), MASS, SMALL_AND_LARGE, Budgets(hosted_params_b=5))
    assert found.hosted.tolist() == [True, False]
    assert found.utility(np.array([0.1, 0.9], np.float32), 0).tolist() == pytest.approx([0.1, -np.inf])


def test_the_reference_is_the_best_hosted_expert() -> None:
    sample = np.array([[0.4, 0.9, 0.7], [0.5, 0.8, 0.7]])
    assert reference_expert(sample, np.array([True, True, True])) == 1
    assert reference_expert(sample, np.array([True, False, True])) == 2


def priced_by_category(usd: list[list[float]]) -> ExpertCosts:
    m = len(usd[0])
    by_row = np.array(usd, np.float32)
    return replace(costs([1.0] * m, [1.0] * m, [0] * m, [0.0]), cost_usd=by_row, latency_ms=np.zeros_like(by_row))


def choices_of(found: Preference, quality: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array([found.utility(own, int(row)).argmax() for own, row in zip(quality, rows, strict=True)])


def test_amounts_by_row_have_the_experts_means_in_the_sample() -> None:
    """Three of four sample queries are of the first row, half of the traffic; the last row has no answer."""
    per_row, means = np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 6.0], [0.0, 0.0, 4.0]]), np.array([2.0, 0.0, 4.0])
    share = share_of_rows(np.array([0, 0, 1, 0]), 3)
    found = amounts_by_row(per_row, means, share)
    assert share @ found == pytest.approx(means)
    assert found[:, 0] == pytest.approx(np.array([1.0, 3.0, 2.0]) * 2 / 1.5)
    assert found[:, 1].tolist() == [0.0, 0.0, 0.0]


def test_tolls_follow_the_row_where_costs_do() -> None:
    """The large expert is worth 0.4 more everywhere, and its answers of the second row are five times as long."""
    sample, rows = np.array([[0.5, 0.9]] * 4, np.float32), np.array([0, 0, 1, 1])
    made = priced_by_category([[1.0, 2.0], [1.0, 10.0], [1.0, 6.0]])
    mass = np.array([0.5, 0.5, 0.0], np.float32)
    found = solved(LearnedChoice(sample, 0.0, rows), mass, made, Budgets(cost_usd=2.0))
    assert found.tolls.shape == (3, 2)
    assert choices_of(found, sample, rows).tolist() == [1, 1, 0, 0]
    free = solved(LearnedChoice(sample, 0.0, rows), mass, made, Budgets(cost_usd=6.0))
    assert free.tolls.shape == (2,)  # what keeps the limits anyway needs no price


def test_a_budget_holds_where_the_expensive_queries_go_to_the_expensive_expert() -> None:
    """The large expert is better on long queries only, which cost it nearly twice its mean."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, 2000)
    quality = np.stack([np.full(2000, 0.5), 0.4 + 0.3 * rows + rng.uniform(-0.1, 0.1, 2000)], axis=1).astype(np.float32)
    made = priced_by_category([[1.0, 1.0], [1.0, 9.0], [1.0, 5.0]])
    mass = np.array([0.5, 0.5, 0.0], np.float32)
    sample, test = slice(0, 1000), slice(1000, 2000)
    choice = LearnedChoice(quality[sample], 0.0, rows[sample])
    found = solved(choice, mass, made, Budgets(cost_usd=2.5))
    chosen = choices_of(found, quality[test], rows[test])
    assert 0.9 * 2.5 < made.cost_usd[rows[test], chosen].mean() <= 2.5


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(1, 9))
def test_a_limit_that_one_expert_keeps_is_kept_on_the_sample_by_row(seed: int, usd: float) -> None:
    rng = np.random.default_rng(seed)
    sample, rows = rng.random((50, 3)).astype(np.float32), rng.integers(0, 3, 50)
    mass = np.append(rng.dirichlet(np.ones(3)), 0.0).astype(np.float32)
    made = priced_by_category(rng.uniform(1, 9, (4, 3)).tolist())
    means = mass @ made.cost_usd
    try:
        found = solved(LearnedChoice(sample, 0.05, rows), mass, made, Budgets(cost_usd=usd))
    except InfeasibleBudgetError:
        assert not (means <= usd).any()
        return
    by_row = amounts_by_row(made.cost_usd, means, share_of_rows(rows, 4))
    assert by_row[rows, choices_of(found, sample, rows)].mean() <= usd * (1 + 1e-4)


def test_a_score_keeps_one_budget_on_an_average() -> None:
    with pytest.raises(ValueError, match="2 budgets on averages"):
        solved(in_one_row(np.ones((1, 2)), 0.0), MASS, SMALL_AND_LARGE, Budgets(cost_usd=1, latency_ms=1))


def test_prices_keep_a_limit_on_the_traffic_that_their_sample_was_drawn_from() -> None:
    """Forty samples of 300 queries, each with a limit that binds; the traffic is 20,000 others."""
    amounts, over, used = np.array([7.0, 70.0]), [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sample, traffic = (rng.normal([0.5, 0.6], 0.1, (n, 2)) for n in (300, 20_000))
        mean = []
        for price in (
            budget_price("active_params_b", sample, amounts, 30.0),
            price_with_reserve("active_params_b", sample, amounts, 30.0),
        ):
            chosen = (traffic - price * amounts).argmax(axis=1)
            mean.append(amounts[chosen].mean())
        over.append([amount > 30.0 for amount in mean])
        used.append(mean[1] / 30.0)
    plain, reserved = np.sum(over, axis=0)
    assert plain > 10
    assert reserved <= 3
    assert np.mean(used) > 0.85
    least = 7.5  # hardly more than the small expert needs: no reserve fits
    found = price_with_reserve("active_params_b", sample[:5], amounts, least)
    assert found == budget_price("active_params_b", sample[:5], amounts, least)
