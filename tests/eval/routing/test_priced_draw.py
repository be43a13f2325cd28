"""A draw between two prices that spends a limit on average: by hand, and against the full linear program."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eval.routing.frontier import priced_draw
from tests.router.test_price import LONG_AND_SHORT, QUALITY, full_program, problems

Float64Array = NDArray[np.float64]
SIZE, COST = np.array([10.0, 70.0]), LONG_AND_SHORT["cost_usd"]


def drawn(quality: Float64Array, amounts: Float64Array, limit: float) -> tuple[float, float]:
    """Mean quality and amount where the sample itself is decided."""
    probs = priced_draw("cost_usd", limit, quality, amounts, quality, amounts)
    np.testing.assert_allclose(probs.sum(axis=1), 1.0)
    return float((probs * quality).sum(axis=1).mean()), float((probs * amounts).sum(axis=1).mean())


@pytest.mark.parametrize(
    ("amounts", "limit", "quality", "amount"),
    [
        (SIZE, 10.0, 0.5, 10.0),
        (SIZE, 25.0, 0.6, 25.0),  # one large call, to the query that it helps most
        (SIZE, 32.5, 0.6 + 0.075 / 2, 32.5),  # and half a call to the next
        (SIZE, 40.0, 0.675, 40.0),
        (SIZE, 70.0, 0.7, 55.0),  # the last query is better off with the small expert
        (np.array([0.0, 3e-6]), 0.75e-6, 0.6, 0.75e-6),
        (np.array([0.0, 3e-6]), 0.0, 0.5, 0.0),
        (COST, 1.0, 0.5, 1.0),
        (COST, 1.75, 0.6, 1.75),  # 0.4 for 3 is the best bargain
        (COST, 2.125, 0.6375, 2.125),  # half of the next: 0.3 for 3
        (COST, 2.75, 0.7, 2.75),  # and 0.1 for 1
        (COST, 4.0, 0.7, 2.75),
    ],
)
def test_a_limit_by_hand(amounts: Float64Array, limit: float, quality: float, amount: float) -> None:
    assert drawn(QUALITY, amounts, limit) == pytest.approx((quality, amount), abs=1e-6)


def test_prices_apply_to_queries_of_other_amounts() -> None:
    """The price is 0.1 per unit, or a little more."""
    others = np.array([[1.0, 3.0], [1.0, 5.0]])
    probs = priced_draw("cost_usd", 1.75, QUALITY, COST, np.array([[0.5, 0.75], [0.5, 0.75]]), others)
    np.testing.assert_allclose(probs, [[0.0, 1.0], [1.0, 0.0]])


@given(problems(1), st.integers(0, 10))
def test_a_limit_is_kept_nothing_is_left_on_the_table_and_more_never_lowers_quality(
    problem: tuple[Float64Array, dict[str, Float64Array], dict[str, float]], more: int
) -> None:
    quality, amounts, limits = problem
    amount, limit = amounts["active_params_b"], limits["active_params_b"]
    mean, used = drawn(quality, amount, limit)
    assert used <= limit * (1 + 2e-6)
    assert mean == pytest.approx(full_program(quality, amounts, limits), abs=1e-5)
    assert drawn(quality, amount, limit + more / 2)[0] >= mean - 1e-9


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_equal_experts_the_one_of_least_amount_answers(order: list[int]) -> None:
    """Whatever their order: no expert is better, the limit binds nowhere, and the small one costs less."""
    equal = np.full((5, 2), 0.7)
    probs = priced_draw("active_params_b", 100.0, equal, SIZE[order], equal, SIZE[order])
    assert (probs[:, order.index(0)] == 1).all()
