"""Quality against budgets: known answers, kept budgets, and no loss with more of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eval.routing.frontier import (
    Budget,
    amounts_used,
    budget_grid,
    drawn_map_curve,
    first_reaching,
    map_curve,
    measure_curves,
    mixture_curve,
    soft_curve,
)
from eval.routing.trial import Spending

SIZES = np.array([10.0, 70.0])
EXPERTS = ("small", "large")
MAP = np.array([[0.85, 0.8], [0.2, 0.7]])
"""Two categories: the large expert helps only in the second."""
ROWS = np.array([0, 0, 1, 1])
FIT_MEANS = np.array([0.5, 0.75])
SCORES = np.array([[1, 1], [1, 0], [0, 1], [0, 1]], dtype=np.float64)


def active(limits: list[float]) -> Budget:
    return Budget("active_params_b", np.array(limits), SIZES, SIZES)


def test_the_grid_spans_what_can_be_used() -> None:
    grid = budget_grid("active_params_b", SIZES, extra=(31.0, 5.0))
    assert (grid[0], grid[-1], len(grid)) == (10.0, 70.0, 11)
    assert 31.0 in grid
    np.testing.assert_allclose(np.diff(np.log(grid[grid != 31.0])), np.log(7) / 9)
    assert budget_grid("hosted_params_b", SIZES)[-1] == 80.0
    np.testing.assert_allclose(budget_grid("cost_usd", np.array([0.0, 0.9])), np.linspace(0, 0.9, 10))


def test_a_map_spends_where_it_helps() -> None:
    curve = map_curve(MAP, np.array([0.5, 0.5]), ROWS, active([10.0, 39.0, 40.0, 70.0]))
    assert [part.probs[:, 1].tolist() for part in curve] == [[0, 0, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2
    assert [part.hosted.tolist() for part in curve] == [[True, False]] * 2 + [[True, True]] * 2


def test_a_drawn_map_splits_the_category_that_a_budget_ends_in() -> None:
    curve = drawn_map_curve(MAP, np.array([0.5, 0.5]), ROWS, active([10.0, 25.0, 40.0]))
    np.testing.assert_allclose(
        [part.probs[:, 1] for part in curve], [[0] * 4, [0, 0, 0.5, 0.5], [0, 0, 1, 1]], atol=1e-4
    )


def test_hosted_parameters_admit_a_subset() -> None:
    budget = Budget("hosted_params_b", np.array([10.0, 70.0, 80.0]), SIZES, SIZES)
    on_map = map_curve(MAP, np.array([0.5, 0.5]), ROWS, budget)
    soft = soft_curve(MAP[ROWS], MAP[ROWS], budget)
    for curve in (on_map, soft):
        assert [part.hosted.tolist() for part in curve] == [[True, False], [False, True], [True, True]]
    assert soft[2].probs.argmax(axis=1).tolist() == [0, 0, 1, 1]
    best = mixture_curve(FIT_MEANS, 4, budget)
    assert [part.probs[0].argmax() for part in best] == [0, 1, 1]


def test_a_soft_score_meets_the_budget_in_expectation() -> None:
    rng = np.random.default_rng(0)
    sample = rng.random((500, 2))
    for part, limit in zip(soft_curve(sample, sample, active([10.0, 22.0, 35.0])), (10.0, 22.0, 35.0), strict=True):
        assert (part.probs @ SIZES).mean() == pytest.approx(limit, rel=2e-6)


def test_points_are_measured_on_test_scores_against_the_mixture() -> None:
    budget = active([10.0, 40.0, 70.0])
    curves = {
        "map": map_curve(MAP, np.array([0.5, 0.5]), ROWS, budget),
        "best_mixture": mixture_curve(FIT_MEANS, 4, budget),
    }
    measured = measure_curves(curves, budget, FIT_MEANS, SCORES, EXPERTS, np.random.default_rng(0))
    found = {name: curve.points for name, curve in measured.items()}
    assert [point.mean_score for point in found["map"]] == pytest.approx([0.5, 1.0, 1.0])
    assert [point.mean_score for point in found["best_mixture"]] == pytest.approx([0.5, 0.625, 0.75])
    assert [point.amount for point in found["map"]] == pytest.approx([10.0, 40.0, 40.0])
    assert [point.amount for point in found["best_mixture"]] == pytest.approx([10.0, 40.0, 70.0], rel=1e-4)
    assert all(point.gain is None for point in found["best_mixture"])
    middle = found["map"][1]
    assert middle.gain.mean == pytest.approx(0.375)
    assert middle.gain.interval[0] > 0  # it wins or ties on every single query
    assert middle.shares == {"small": 0.5, "large": 0.5}
    draws = measured["map"].amount_draws
    assert draws[:, 0] == pytest.approx(10.0)
    assert draws[:, 1].min() < 40.0 < draws[:, 1].max()
    assert (draws[:, 1] == draws[:, 2]).all()


def test_costs_on_test_may_differ_from_those_expected() -> None:
    per_query = np.array([[1.0, 5.0], [1.0, 5.0], [1.0, 7.0], [1.0, 9.0]])
    budget = Budget("cost_usd", np.array([4.0]), np.array([1.0, 6.0]), per_query)
    curves = {"map": map_curve(MAP, np.ones(2), ROWS, budget), "best_mixture": mixture_curve(FIT_MEANS, 4, budget)}
    point = measure_curves(curves, budget, FIT_MEANS, SCORES, EXPERTS, np.random.default_rng(0))["map"].points[0]
    assert (point.budget, point.amount) == (4.0, pytest.approx((1 + 1 + 7 + 9) / 4))
    share = (4.5 - 1) / (6 - 1)  # the rival may spend the 4.5 that were used
    assert point.gain.mean == pytest.approx(1.0 - (0.5 + share * 0.25), abs=1e-5)


def test_a_larger_budget_never_lowers_the_quality_that_was_aimed_at() -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([2.0, 7.0, 9.0, 30.0, 70.0])
    quality, mass = rng.random((6, 5)), rng.random(6)
    rows, sample = np.arange(6), rng.random((200, 5))
    for name in ("active_params_b", "hosted_params_b"):
        budget = Budget(name, budget_grid(name, sizes), sizes, sizes)
        on_map = [float(mass @ (part.probs * quality).sum(axis=1)) for part in map_curve(quality, mass, rows, budget)]
        soft = [float((part.probs * sample).sum(axis=1).mean()) for part in soft_curve(sample, sample, budget)]
        for values in (on_map, soft):
            assert (np.diff(values) >= -1e-6).all()
            assert values[-1] > values[0]


def test_the_first_point_that_reaches_a_quality() -> None:
    budget = active([10.0, 40.0, 70.0])
    curves = {"best_mixture": mixture_curve(FIT_MEANS, 4, budget)}
    points = measure_curves(curves, budget, FIT_MEANS, SCORES, EXPERTS, np.random.default_rng(0))["best_mixture"].points
    assert first_reaching(points, 0.6) == points[1]
    assert first_reaching(points, 0.8) is None


PER_ROW = np.array([[1.0, 1.5], [1.0, 8.5], [1.0, 5.0]])
"""The large expert's answers to the second category, where it helps, are long."""


def test_costs_by_row_keep_a_limit_that_mean_costs_exceed() -> None:
    quality, rows = np.array([[0.85, 0.8], [0.2, 0.7], [0.5, 0.75]]), np.array([0, 1] * 50)
    means = np.array([1.0, 5.0])
    plain = Budget("cost_usd", np.array([1.0, 2.5]), means, PER_ROW[rows])
    by_row = replace(plain, by_row=PER_ROW)
    mass = np.array([0.5, 0.5, 0.0])

    def spent(curve: list[Spending], budget: Budget) -> list[float]:
        return [float(amounts_used(part, budget, len(rows)).mean()) for part in curve]

    for budget, expected in ((plain, [1.0, 1 + 0.375 * 7.5]), (by_row, [1.0, 2.5])):
        drawn = drawn_map_curve(quality, mass, rows, budget)
        soft = soft_curve(quality[rows], quality[rows], budget, rows, rows)
        assert spent(drawn, budget) == pytest.approx(expected, rel=1e-4)
        assert spent(soft, budget) == pytest.approx(expected, rel=1e-4)
        on_map = map_curve(quality, mass, rows, replace(budget, limits=np.array([3.5])))
        assert spent(on_map, budget)[0] <= 3.5 if budget is by_row else spent(on_map, budget)[0] == 4.75
    unknown = soft_curve(quality[rows], quality[rows], by_row, None, rows)  # the sample's rows are not known
    assert spent(unknown, by_row) == pytest.approx([1.0, 1 + 0.375 * 7.5], rel=1e-4)
