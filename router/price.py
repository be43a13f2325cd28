"""What a unit of each budget is worth in predicted quality, so that a soft score keeps budgets on average.

Shapes: n sample queries, m experts, b budgets, r parts of a draw. The linear program over shares x[i,e]

    max  1/n sum_i sum_e q[i,e] x[i,e]    s.t.  sum_e x[i,e] = 1,   1/n sum_i sum_e a[b,e] x[i,e] <= limit[b],   x >= 0

has the Lagrange dual  min over prices p >= 0 of  1/n sum_i max_e (q[i,e] - sum_b p[b] a[b,e]) + sum_b p[b] limit[b],
so at the best prices each query takes its own argmax. Where queries tie there, a draw between two neighbouring sets of
prices spends the rest of the budget (Everett 1963 for the multipliers, Dantzig & Wolfe 1960 for the draw).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from router.errors import InfeasibleBudgetError

T = TypeVar("T")
Float64Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

SLACK = 1e-6
"""Relative excess of a budget that counts as keeping it, as for the map."""

RAISE = 1e-9
"""Share that prices are raised by, so that no rounding of quality - price * amount settles a tie."""

LEAST_LIMIT = 1e-12
"""A limit below counts as 0: no amount is that small, and what is divided by it would overflow."""

BISECTIONS = 200
CUTS = 400
CUT_TOLERANCE = 1e-7
TIGHTENING = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares that several limits are cut by until one set of prices keeps them without a draw."""


@dataclass(frozen=True)
class PricedChoice:
    """A draw of one toll per expert for each query: `tolls` (r, m) in units of quality, `weights` (r,) sum to 1.

    A query takes the expert of highest quality minus toll; of equals the first in `order` (m,), least amounts first.
    """

    tolls: Float64Array
    weights: Float64Array
    order: IntArray

    def experts(self, quality: NDArray[np.floating]) -> IntArray:
        """(r, n) the expert of each query under each part of the draw."""
        return np.stack([take_best(quality, toll, self.order) for toll in self.tolls])

    def probs(self, quality: NDArray[np.floating]) -> Float64Array:
        """(n, m) probability that each expert serves; rows sum to 1."""
        probs = np.zeros(quality.shape)
        for expert, weight in zip(self.experts(quality), self.weights, strict=True):
            probs[np.arange(len(quality)), expert] += weight
        return probs


@dataclass(frozen=True)
class Problem:
    """A sample and its budgets, each scaled so that its limit is near 1: a cost may be 1e-5 USD and solvers' tolerances
    are absolute. `quality` (n, m), `amounts` (b, m), `limits` (b,), `scales` (b,)."""

    names: tuple[str, ...]
    quality: Float64Array
    amounts: Float64Array
    limits: Float64Array
    scales: Float64Array
    order: IntArray

    def play(self, toll: Float64Array) -> tuple[float, Float64Array]:
        """Mean quality and mean amounts (b,) when every query takes its best expert after tolls (m,)."""
        expert = take_best(self.quality, toll, self.order)
        mean = self.quality[np.arange(len(expert)), expert].mean()
        counts = np.bincount(expert, minlength=self.quality.shape[1]) / len(expert)
        return float(mean), np.asarray(self.amounts @ counts, dtype=np.float64)

    def tolls(self, prices: Float64Array) -> Float64Array:
        """(m,) tolls of prices (b,), none for the least amount: only differences matter, and small ones stay exact."""
        return np.asarray(prices @ (self.amounts - self.amounts.min(axis=1, keepdims=True)), dtype=np.float64)


def take_best(quality: NDArray[np.floating], toll: Float64Array, order: IntArray) -> IntArray:
    """(n,) expert of highest quality minus toll; of equals the first in `order`."""
    return np.asarray(order[np.argmax(quality[:, order] - toll[order], axis=1)], dtype=np.int64)


def budget_choice(
    quality: NDArray[np.floating], amounts: Mapping[str, NDArray[np.floating]], limits: Mapping[str, float]
) -> PricedChoice:
    """The draw of highest mean sample quality whose expected amounts on the sample keep every limit.

    Args:
        quality: (n, m) predicted quality on queries that nothing was fitted on.
        amounts: per budget (m,) what one query costs of it: billions of active parameters, USD, ms.
        limits: per budget the largest mean amount; budgets of `amounts` without a limit are left open.

    Raises:
        InfeasibleBudgetError: no mixture of experts keeps a limit; names it and the smallest value that would do.
        ValueError: no query, a limit without amounts, or an amount that is not finite.
    """
    problem = make_problem(quality, amounts, limits)
    require_feasible(problem)
    if len(problem.names) == 1:
        low, high = one_price(problem)
        parts = np.stack([problem.tolls(np.array([low])), problem.tolls(np.array([high]))])
        above, below = (problem.play(toll)[1][0] for toll in parts)
        share = (problem.limits[0] - below) / (above - below) if above > below else 0.0
        weights = np.array([min(max(share, 0.0), 1.0), 1 - min(max(share, 0.0), 1.0)])
    elif problem.names:
        parts, weights, _ = cutting_planes(problem)
    else:
        parts, weights = np.zeros((1, quality.shape[1])), np.ones(1)
    used = weights > 0
    return PricedChoice(parts[used], weights[used] / weights[used].sum(), problem.order)


def budget_prices(
    quality: NDArray[np.floating], amounts: Mapping[str, NDArray[np.floating]], limits: Mapping[str, float]
) -> dict[str, float]:
    """Prices by budget, in quality per unit of the amount, under which argmax(quality - price * amount) keeps all
    limits on the sample without any draw. 0 where a limit does not bind; where experts then tie, the one of least
    amount must be taken. Arguments and errors as `budget_choice`; an error also where several limits need a draw.
    """
    problem = make_problem(quality, amounts, limits)
    require_feasible(problem)
    if not problem.names:
        return {}
    single = len(problem.names) == 1
    prices = np.array([one_price(problem)[1] * (1 + RAISE)]) if single else several_prices(problem)
    return dict(zip(problem.names, (prices / problem.scales).tolist(), strict=True))


def make_problem(
    quality: NDArray[np.floating], amounts: Mapping[str, NDArray[np.floating]], limits: Mapping[str, float]
) -> Problem:
    """Checks and scales. Raises ValueError."""
    if quality.ndim != 2 or len(quality) == 0:
        raise ValueError(f"quality has shape {quality.shape}; expected (n, m) with at least one query")
    m = quality.shape[1]
    rows, scales = [], []
    for name, limit in limits.items():
        row = np.asarray(amounts[name], dtype=np.float64) if name in amounts else np.full(m, np.nan)
        if row.shape != (m,) or not np.isfinite(row).all():
            raise ValueError(f"amounts of budget {name} are {row.tolist()}; expected {m} finite numbers")
        scales.append(limit if limit > LEAST_LIMIT else max(float(row.max()), 1.0))
        rows.append(row / scales[-1])
    matrix = np.array(rows).reshape(len(rows), m)
    by_amount = np.argsort((matrix / np.maximum(matrix.max(axis=1, keepdims=True), 1e-300)).sum(axis=0), kind="stable")
    limit_row = np.array([limits[name] for name in limits], dtype=np.float64) / np.array(scales)
    values = np.asarray(quality, dtype=np.float64)
    return Problem(tuple(limits), values, matrix, limit_row, np.array(scales), by_amount.astype(np.int64))


def require_feasible(problem: Problem) -> None:
    """Raises InfeasibleBudgetError for the first limit that no mixture of experts keeps beside all others; where others
    exclude each other, beside those before it."""
    for i, rest in beside_others(range(len(problem.names))):
        least = least_amount(problem, i, rest)
        if least is not None and least > problem.limits[i] * (1 + SLACK):
            raise InfeasibleBudgetError(
                problem.names[i], float(problem.limits[i] * problem.scales[i]), float(least * problem.scales[i])
            )


def beside_others(budgets: Sequence[T]) -> Iterator[tuple[T, list[T]]]:
    """Each budget with all others; then each with those before it, for others may exclude each other."""
    for i, budget in enumerate(budgets):
        yield budget, [*budgets[:i], *budgets[i + 1 :]]
    for i, budget in enumerate(budgets):
        yield budget, list(budgets[:i])


def least_amount(problem: Problem, row: int, rest: list[int]) -> float | None:
    """The least mean amount of one budget that a mixture of experts within the `rest` can have; None where none is."""
    if not rest:
        return float(problem.amounts[row].min())
    from scipy.optimize import linprog

    found = linprog(
        problem.amounts[row],
        A_ub=problem.amounts[rest],
        b_ub=problem.limits[rest] * (1 + SLACK),
        A_eq=np.ones((1, problem.amounts.shape[1])),
        b_eq=[1.0],
    )
    return None if found.x is None else float(found.fun)


def one_price(problem: Problem) -> tuple[float, float]:
    """The prices just below and at the step where the mean amount comes within the limit; equal when it always is.

    The mean amount never rises with the price, so the step is found by bisection to the last bit.
    """

    def is_kept(price: float) -> bool:
        return bool(problem.play(problem.tolls(np.array([price])))[1][0] <= problem.limits[0] * (1 + SLACK))

    if is_kept(0.0):
        return 0.0, 0.0
    amount = problem.amounts[0]
    step = float(np.diff(np.unique(amount)).min())  # there are two different ones, or the price 0 would do
    low, high = 0.0, 2 * float(np.ptp(problem.quality)) / step + 1.0  # at which every query takes the least amount
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if is_kept(middle) else (middle, high)
    return low, high


def cutting_planes(problem: Problem) -> tuple[Float64Array, Float64Array, list[Float64Array]]:
    """Tolls (r, m) and weights (r,) of the best draw, and the prices that were tried, best last (Kelley 1960).

    Starts from every expert alone (a toll of infinity on the others), whose mixtures keep the limits when any do. The
    multipliers of the cuts are the weights of the draw.
    """
    m = problem.quality.shape[1]
    tolls = [*np.where(np.eye(m, dtype=bool), 0.0, np.inf), np.zeros(m)]
    played = [problem.play(toll) for toll in tolls]
    tried: list[Float64Array] = [np.zeros(len(problem.names))]
    for _ in range(CUTS):
        value, prices, weights = master(played, problem.limits)
        tried.append(prices)
        toll = problem.tolls(prices)
        quality, amount = problem.play(toll)
        if quality + prices @ (problem.limits * (1 + SLACK / 2) - amount) <= value + CUT_TOLERANCE:
            break
        tolls.append(toll)
        played.append((quality, amount))
    return np.stack(tolls[: len(weights)]), weights, tried


def several_prices(problem: Problem) -> Float64Array:
    """The prices (b,) of highest sample quality, among those tried, that keep all limits without a draw. Limits are
    tightened step by step while none does. Raises InfeasibleBudgetError."""
    for share in TIGHTENING:
        tight = replace(problem, limits=problem.limits * (1 - share))
        try:
            require_feasible(tight)
        except InfeasibleBudgetError:
            break
        found = [(*problem.play(problem.tolls(prices)), prices) for prices in candidates(cutting_planes(tight)[2])]
        kept = [
            (quality, prices) for quality, amount, prices in found if (amount <= problem.limits * (1 + SLACK)).all()
        ]
        if kept:
            return max(kept, key=lambda pair: pair[0])[1]
    excess = [(amount / np.maximum(problem.limits, SLACK), amount) for _, amount, _ in found]
    amount = min(excess, key=lambda pair: float(pair[0].max()))[1]
    worst = int((amount / np.maximum(problem.limits, SLACK)).argmax())
    limit, scale = float(problem.limits[worst]), float(problem.scales[worst])
    raise InfeasibleBudgetError(problem.names[worst], limit * scale, float(amount[worst]) * scale)


def candidates(tried: list[Float64Array]) -> list[Float64Array]:
    """Prices a little raised, so that queries that tie there take the lesser amount."""
    return [prices * (1 + RAISE) for prices in tried] + [tried[-1] * (1 + rise) for rise in (1e-6, 1e-3)]


def master(played: list[tuple[float, Float64Array]], limits: Float64Array) -> tuple[float, Float64Array, Float64Array]:
    """Value, prices (b,) and weights of the cuts: min t + p . limits  s.t.  t >= quality_r - p . amounts_r, p >= 0."""
    from scipy.optimize import linprog

    b = len(limits)
    rows = np.array([[-1.0, *(-amount)] for _, amount in played])
    found = linprog(
        np.array([1.0, *(limits * (1 + SLACK / 2))]),
        A_ub=rows,
        b_ub=[-quality for quality, _ in played],
        bounds=[(None, None), *[(0.0, None)] * b],
    )
    weights = np.maximum(-found.ineqlin.marginals, 0.0)
    return float(found.fun), np.maximum(found.x[1:], 0.0), weights / weights.sum()
