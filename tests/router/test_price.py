"""The price of a budget: by hand, against the full linear program, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.router.policy.budget_price import budget_price

Float64Array = NDArray[np.float64]
SIZE = np.array([10.0, 70.0])
QUALITY = np.array([[0.5, 0.9], [0.5, 0.8], [0.5, 0.6], [0.5, 0.4]])
"""The large expert is worth 0.4, 0.3, 0.1 and -0.1 more."""


def full_program(quality: Float64Array, amounts: Float64Array, limit: float) -> float:
    """The optimum of the whole linear program over shares (n, m)."""
    from scipy.optimize import linprog

    n, m = quality.shape
    found = linprog(
        -quality.ravel() / n,
        A_ub=np.broadcast_to(amounts, (n, m)).ravel()[None] / n,
        b_ub=[limit],
        A_eq=np.kron(np.eye(n), np.ones((1, m))),
        b_eq=np.ones(n),
        bounds=(0, 1),
    )
    return -float(found.fun)


@pytest.mark.parametrize(("limit", "price"), [(25.0, 0.3 / 60), (39.0, 0.3 / 60), (60.0, 0.0)])
def test_the_price_is_the_gain_of_the_first_query_left_out(limit: float, price: float) -> None:
    assert budget_price("active_params_b", QUALITY, SIZE, limit) == pytest.approx(price)


def test_an_impossible_budget_is_named_with_the_smallest_that_would_do() -> None:
    with pytest.raises(InfeasibleBudgetError) as error:
        budget_price("active_params_b", QUALITY, SIZE, 9.0)
    assert (error.value.budget, error.value.value, error.value.smallest) == ("active_params_b", 9.0, 10.0)


LONG_AND_SHORT = np.array([[1.0, 4.0], [1.0, 4.0], [1.0, 2.0], [1.0, 2.0]])
"""The large expert writes long answers to the first two queries, which it helps most."""


def test_the_price_of_amounts_by_query_is_the_bargain_of_the_first_left_out() -> None:
    assert budget_price("cost_usd", QUALITY, LONG_AND_SHORT, 1.75) == pytest.approx(0.1)
    assert budget_price("cost_usd", QUALITY, LONG_AND_SHORT, 2.75) == 0.0


def test_a_limit_below_every_expert_may_be_kept_by_query() -> None:
    """Each expert is cheap on one query and dear on the other."""
    quality, cost = np.array([[0.2, 0.9], [0.9, 0.2]]), np.array([[1.0, 5.0], [5.0, 1.0]])
    price = budget_price("cost_usd", quality, cost, 1.5)
    np.testing.assert_array_equal((quality - price * cost).argmax(axis=1), [0, 1])
    with pytest.raises(InfeasibleBudgetError, match=r"^budget cost_usd=0.5 cannot be met; .* is 1$"):
        budget_price("cost_usd", quality, cost, 0.5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_limit_on_amounts_by_query_is_kept_on_the_sample(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    quality, amounts = rng.random((40, 3)), rng.uniform(1, 9, (4, 3))[rng.integers(0, 4, 40)]
    least = float(amounts.min(axis=1).mean())
    limit = least + share * (9 - least)
    chosen = (quality - budget_price("cost_usd", quality, amounts, limit) * amounts).argmax(axis=1)
    assert amounts[np.arange(40), chosen].mean() <= limit * (1 + 2e-6)
    assert quality[np.arange(40), chosen].mean() <= full_program(quality, amounts, limit) + 1e-5


@st.composite
def problems(draw: st.DrawFn) -> tuple[Float64Array, Float64Array, float]:
    """Coarse numbers, so that queries tie; limits lie between the least and the largest amount."""
    m = draw(st.integers(2, 4))
    grades = st.integers(0, 5).map(lambda value: value / 5)
    rows = draw(st.lists(st.lists(grades, min_size=m, max_size=m), min_size=1, max_size=8))
    amounts = np.array(draw(st.lists(st.integers(1, 9), min_size=m, max_size=m)), dtype=float)
    return np.array(rows), amounts, float(amounts.min() + draw(st.integers(0, 10)) / 10 * np.ptp(amounts))


@given(problems())
def test_a_budget_is_kept_where_queries_tie(problem: tuple[Float64Array, Float64Array, float]) -> None:
    quality, amounts, limit = problem
    price = budget_price("active_params_b", quality, amounts, limit)
    order = np.argsort(amounts, kind="stable")
    chosen = order[np.argmax((quality - price * amounts)[:, order], axis=1)]
    assert amounts[chosen].mean() <= limit * (1 + 2e-6)
