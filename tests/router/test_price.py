"""Prices of budgets: by hand, against the full linear program, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from base.errors import InfeasibleBudgetError
from router.price import budget_prices

Float64Array = NDArray[np.float64]
SIZE = {"active_params_b": np.array([10.0, 70.0])}
QUALITY = np.array([[0.5, 0.9], [0.5, 0.8], [0.5, 0.6], [0.5, 0.4]])
"""The large expert is worth 0.4, 0.3, 0.1 and -0.1 more."""


def full_program(quality: Float64Array, amounts: dict[str, Float64Array], limits: dict[str, float]) -> float:
    """The optimum of the whole linear program over shares (n, m)."""
    from scipy.optimize import linprog

    n, m = quality.shape
    found = linprog(
        -quality.ravel() / n,
        A_ub=np.array([np.broadcast_to(amounts[name], (n, m)).ravel() / n for name in limits]),
        b_ub=list(limits.values()),
        A_eq=np.kron(np.eye(n), np.ones((1, m))),
        b_eq=np.ones(n),
        bounds=(0, 1),
    )
    return -float(found.fun)


def test_the_price_is_the_gain_of_the_first_query_left_out() -> None:
    assert budget_prices(QUALITY, SIZE, {"active_params_b": 25.0})["active_params_b"] == pytest.approx(0.3 / 60)
    assert budget_prices(QUALITY, SIZE, {"active_params_b": 39.0})["active_params_b"] == pytest.approx(0.3 / 60)
    assert budget_prices(QUALITY, SIZE, {"active_params_b": 60.0}) == {"active_params_b": 0.0}
    assert budget_prices(QUALITY, SIZE, {}) == {}


def test_limits_of_which_each_two_exclude_each_other_are_named_in_order() -> None:
    """Every limit is kept by an expert of its own, so beside the first the second needs more."""
    amounts = dict(zip(("active_params_b", "cost_usd", "latency_ms"), 10 - 9 * np.eye(3), strict=True))
    with pytest.raises(InfeasibleBudgetError, match=r"^budget cost_usd=2 cannot be met; .* is 9$"):
        budget_prices(np.ones((4, 3)), amounts, dict.fromkeys(amounts, 2.0))


def test_an_impossible_budget_is_named_with_the_smallest_that_would_do() -> None:
    with pytest.raises(InfeasibleBudgetError) as error:
        budget_prices(QUALITY, SIZE, {"active_params_b": 9.0})
    assert (error.value.budget, error.value.value, error.value.smallest) == ("active_params_b", 9.0, 10.0)


def test_of_two_budgets_the_impossible_one_is_named_given_the_other() -> None:
    amounts = {"active_params_b": np.array([1.0, 5.0]), "latency_ms": np.array([500.0, 100.0])}
    with pytest.raises(InfeasibleBudgetError) as error:
        budget_prices(QUALITY, amounts, {"active_params_b": 2.0, "latency_ms": 300.0})
    assert error.value.budget == "active_params_b"
    assert error.value.smallest == pytest.approx(3.0, rel=1e-4)  # half of each keeps the latency


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one query"):
        budget_prices(QUALITY[:0], SIZE, {})
    with pytest.raises(ValueError, match="budget cost_usd"):
        budget_prices(QUALITY, SIZE, {"cost_usd": 1.0})
    with pytest.raises(ValueError, match="2 finite"):
        budget_prices(QUALITY, {"cost_usd": np.array([1.0, np.nan])}, {"cost_usd": 1.0})


LONG_AND_SHORT = {"cost_usd": np.array([[1.0, 4.0], [1.0, 4.0], [1.0, 2.0], [1.0, 2.0]])}
"""The large expert writes long answers to the first two queries, which it helps most."""


def test_the_price_of_amounts_by_query_is_the_bargain_of_the_first_left_out() -> None:
    assert budget_prices(QUALITY, LONG_AND_SHORT, {"cost_usd": 1.75}) == {"cost_usd": pytest.approx(0.1)}
    assert budget_prices(QUALITY, LONG_AND_SHORT, {"cost_usd": 2.75}) == {"cost_usd": 0.0}


def test_a_limit_below_every_expert_may_be_kept_by_query() -> None:
    """Each expert is cheap on one query and dear on the other."""
    quality, cost = np.array([[0.2, 0.9], [0.9, 0.2]]), np.array([[1.0, 5.0], [5.0, 1.0]])
    both = {"cost_usd": cost, "latency_ms": cost * 100}
    prices = budget_prices(quality, both, {"cost_usd": 1.5, "latency_ms": 150.0})
    worth = quality - sum(price * both[name] for name, price in prices.items())
    np.testing.assert_array_equal(worth.argmax(axis=1), [0, 1])
    with pytest.raises(InfeasibleBudgetError, match=r"^budget cost_usd=0.5 cannot be met; .* is 1$"):
        budget_prices(quality, {"cost_usd": cost}, {"cost_usd": 0.5})
    with pytest.raises(InfeasibleBudgetError, match=r"^budget latency_ms=50 cannot be met; .* is 100$"):
        budget_prices(quality, both, {"cost_usd": 3.0, "latency_ms": 50.0})


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(1, 2))
def test_limits_on_amounts_by_query_are_kept_on_the_sample(seed: int, share: float, budgets: int) -> None:
    rng = np.random.default_rng(seed)
    quality, rows = rng.random((40, 3)), rng.integers(0, 4, 40)
    names = ["cost_usd", "latency_ms"][:budgets]
    amounts = {name: rng.uniform(1, 9, (4, 3))[rows] for name in names}
    even = {name: float(amount.mean()) for name, amount in amounts.items()}  # of an even mixture, which keeps both
    least = {name: float(amount.min(axis=1).mean()) for name, amount in amounts.items()}
    low = least if budgets == 1 else even
    limits = {name: low[name] + share * (9 - low[name]) for name in names}
    prices = budget_prices(quality, amounts, limits)
    worth = quality - sum(price * amounts[name] for name, price in prices.items())
    for name, limit in limits.items():
        assert amounts[name][np.arange(40), worth.argmax(axis=1)].mean() <= limit * (1 + 2e-6)
    assert quality[np.arange(40), worth.argmax(axis=1)].mean() <= full_program(quality, amounts, limits) + 1e-5


@st.composite
def problems(draw: st.DrawFn, budgets: int) -> tuple[Float64Array, dict[str, Float64Array], dict[str, float]]:
    """Coarse numbers, so that queries tie; limits lie between the least and the largest amount."""
    m = draw(st.integers(2, 4))
    grades = st.integers(0, 5).map(lambda value: value / 5)
    rows = draw(st.lists(st.lists(grades, min_size=m, max_size=m), min_size=1, max_size=8))
    names = ["active_params_b", "cost_usd"][:budgets]
    amounts = {name: np.array(draw(st.lists(st.integers(1, 9), min_size=m, max_size=m)), dtype=float) for name in names}
    shares = draw(st.lists(st.integers(0, 10), min_size=budgets, max_size=budgets))
    mixed = np.full(m, 1 / m)  # the even mixture keeps these limits at share 0, so that two together are possible
    limits = {
        name: float(amounts[name] @ mixed if budgets > 1 else amounts[name].min())
        + share / 10 * float(np.ptp(amounts[name]))
        for name, share in zip(names, shares, strict=True)
    }
    return np.array(rows), amounts, limits


@given(problems(1))
def test_one_budget_is_kept(
    problem: tuple[Float64Array, dict[str, Float64Array], dict[str, float]],
) -> None:
    quality, amounts, limits = problem
    limit, amount = limits["active_params_b"], amounts["active_params_b"]
    price = budget_prices(quality, amounts, limits)["active_params_b"]
    order = np.argsort(amount, kind="stable")
    chosen = order[np.argmax((quality - price * amount)[:, order], axis=1)]
    assert amount[chosen].mean() <= limit * (1 + 2e-6)


def test_prices_of_two_budgets_keep_both_without_a_draw() -> None:
    rng = np.random.default_rng(0)
    quality = rng.random((400, 4))
    amounts = {"active_params_b": np.array([1.0, 4.0, 8.0, 9.0]), "latency_ms": np.array([900.0, 300.0, 500.0, 100.0])}
    limits = {"active_params_b": 4.0, "latency_ms": 400.0}
    prices = budget_prices(quality, amounts, limits)
    toll = sum(prices[name] * amounts[name] for name in limits)
    chosen = (quality - toll).argmax(axis=1)
    for name, limit in limits.items():
        assert amounts[name][chosen].mean() <= limit * (1 + 2e-6)
    best = full_program(quality, amounts, limits)
    assert quality[np.arange(400), chosen].mean() >= best - 0.005
    assert all(price > 0 for price in prices.values())


def test_budgets_that_only_a_draw_can_keep_are_refused_without_one() -> None:
    """Two experts, one query kind: half of the calls to each keeps both limits, all to either breaks one."""
    quality = np.full((10, 2), 0.5)
    amounts = {"active_params_b": np.array([1.0, 3.0]), "latency_ms": np.array([3.0, 1.0])}
    limits = {"active_params_b": 2.0, "latency_ms": 2.0}
    with pytest.raises(InfeasibleBudgetError):
        budget_prices(quality, amounts, limits)
