"""The price of a unit of a budget, in predicted quality, so that a soft score keeps the budget on average.

Shapes: n sample queries, m experts. The linear program over shares x[i,e]

    max  1/n sum_i sum_e q[i,e] x[i,e]   s.t.  sum_e x[i,e] = 1,   1/n sum_i sum_e a[i,e] x[i,e] <= limit,   x >= 0

has the Lagrange dual

    min over p >= 0 of  1/n sum_i max_e (q[i,e] - p a[i,e]) + p limit

At the best price each query takes its own argmax (Everett 1963). Queries that tie there take the lesser amount.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.router.types import Float64Array

Amounts = Mapping[str, NDArray[np.floating]]

SLACK = 1e-6
"""Relative excess of a budget that counts as keeping it."""

RAISE = 1e-9
"""Share that a price is raised by, so that no rounding of quality - price * amount settles a tie."""

LEAST_LIMIT = 1e-12
"""A limit below counts as 0: no amount is that small, and what is divided by it would overflow."""

BISECTIONS = 200


def price_name(cost_usd: NDArray[np.floating]) -> str:
    """Return the amount by which plans are compared: USD, or active parameters if nothing has a price."""
    return "cost_usd" if cost_usd.any() else "active_params_b"


def relative_price(amounts: Amounts) -> Float64Array:
    """Return the amounts of that name, as shares of the largest."""
    price = np.asarray(amounts[price_name(amounts["cost_usd"])], dtype=np.float64)
    return price / max(float(price.max()), 1e-12)


def budget_price(name: str, quality: Float64Array, amounts: NDArray[np.floating], limit: float) -> float:
    """Return the price under which argmax(quality - price * amount) keeps the limit on the sample. It is in quality per
    unit of the amount, and 0 if the limit does not bind. Among experts that tie, the caller must take the one of least
    amount. The mean amount never rises with the price, so bisection finds it to the last bit.

    Args:
        quality: (n, m) predicted quality on queries that nothing was fitted on.
        amounts: what one query costs of the budget, in billions of active parameters, USD or ms: (m,) for all queries
            alike, or (n, m).
        limit: the largest mean amount.

    Raises:
        InfeasibleBudgetError: no choice of experts keeps it; the error has the smallest value that would do.
    """
    scale = limit if limit > LEAST_LIMIT else max(float(amounts.max(initial=0.0)), 1.0)  # amounts may be 1e-5 USD
    scaled = np.broadcast_to(np.asarray(amounts, dtype=np.float64) / scale, quality.shape)
    most = limit / scale * (1 + SLACK)
    least = float(scaled.min(axis=1).mean())
    if least > most:
        raise InfeasibleBudgetError(name, limit, least * scale)
    extra = scaled - scaled.min(axis=1, keepdims=True)  # only differences matter, and small ones stay exact

    def is_kept(price: float) -> bool:
        worth = quality - price * extra
        is_best = worth == worth.max(axis=1, keepdims=True)
        return bool(np.where(is_best, scaled, np.inf).min(axis=1).mean() <= most)

    if is_kept(0.0):
        return 0.0
    steps = np.diff(np.sort(scaled, axis=1), axis=1)
    step = float(steps[steps > 0].min())  # some query has two different amounts, or the price 0 would do
    low, high = 0.0, 2 * float(np.ptp(quality)) / step + 1.0  # at which every query takes the least amount
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if is_kept(middle) else (middle, high)
    return high * (1 + RAISE) / scale
