"""Prices of a unit of each budget, in predicted quality, so that a soft score keeps budgets on average.

Shapes: n sample queries, m experts, b budgets, r cuts. The linear program over shares x[i,e]

    max  1/n sum_i sum_e q[i,e] x[i,e]   s.t.  sum_e x[i,e] = 1,   1/n sum_i sum_e a[b,i,e] x[i,e] <= limit[b],   x >= 0

has the Lagrange dual  min over prices p >= 0 of  1/n sum_i max_e (q[i,e] - sum_b p[b] a[b,i,e]) + sum_b p[b] limit[b],
so at the best prices each query takes its own argmax (Everett 1963). Queries that tie there take the lesser amount.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from base.errors import InfeasibleBudgetError
from base.extras import require_installed
from router.types import Float64Array, IntArray

T = TypeVar("T")
Amounts = Mapping[str, NDArray[np.floating]]

SLACK = 1e-6
"""Relative excess of a budget that counts as keeping it."""

RAISE = 1e-9
"""Share that prices are raised by, so that no rounding of quality - price * amount settles a tie."""

LEAST_LIMIT = 1e-12
"""A limit below counts as 0: no amount is that small, and what is divided by it would overflow."""

HIGHEST_PRICE = 1e4
"""Of a scaled amount, while no mixture of cuts keeps the limits: a thousandth of a limit then outweighs all quality."""

BISECTIONS = 200
CUTS = 400
CUT_TOLERANCE = 1e-7
TIGHTENING = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares that several limits are cut by until one set of prices keeps them without a draw."""


@dataclass(frozen=True)
class Problem:
    """A sample and its budgets, each scaled so that its limit is near 1: a cost may be 1e-5 USD and solvers' tolerances
    are absolute. `quality` (n, m), `amounts` (b, n, m), or (b, 1, m) where no amount depends on the query; `limits`
    (b,), `scales` (b,)."""

    names: tuple[str, ...]
    quality: Float64Array
    amounts: Float64Array
    limits: Float64Array
    scales: Float64Array

    @cached_property
    def size(self) -> Float64Array:
        """(n or 1, m) all amounts of an expert together, each relative to its largest, by which ties are settled."""
        return np.asarray((self.amounts / np.maximum(self.amounts.max(axis=(1, 2), keepdims=True), 1e-300)).sum(axis=0))

    @cached_property
    def extra(self) -> Float64Array:
        """(b, n or 1, m) amounts above the query's least: only differences matter, and small ones stay exact."""
        return np.asarray(self.amounts - self.amounts.min(axis=2, keepdims=True))

    def take_best(self, toll: Float64Array) -> IntArray:
        """(n,) expert of highest quality minus toll; of equals the one of least size."""
        worth = self.quality - toll
        is_best = worth == worth.max(axis=1, keepdims=True)
        return np.asarray(np.where(is_best, self.size, np.inf).argmin(axis=1), dtype=np.int64)

    def play(self, toll: Float64Array) -> tuple[float, Float64Array]:
        """Mean quality and mean amounts (b,) when every query takes its best expert after tolls (m,) or (n, m)."""
        expert = self.take_best(toll)
        every = np.arange(len(expert))
        amounts = np.broadcast_to(self.amounts, (len(self.amounts), *self.quality.shape))[:, every, expert]
        return float(self.quality[every, expert].mean()), np.asarray(amounts.mean(axis=1), dtype=np.float64)

    def tolls(self, prices: Float64Array) -> Float64Array:
        """(n or 1, m) tolls of prices (b,), none for the least amount."""
        return np.tensordot(prices, self.extra, axes=1)


def budget_prices(quality: NDArray[np.floating], amounts: Amounts, limits: Mapping[str, float]) -> dict[str, float]:
    """Prices by budget, in quality per unit of the amount, under which argmax(quality - price * amount) keeps all
    limits on the sample without any draw. 0 where a limit does not bind; where experts then tie, the one of least
    amount must be taken.

    Args:
        quality: (n, m) predicted quality on queries that nothing was fitted on.
        amounts: per budget what one query costs of it, in billions of active parameters, USD, ms: (m,) for all queries
            alike, or (n, m).
        limits: per budget the largest mean amount; budgets of `amounts` without a limit are left open.

    Raises:
        InfeasibleBudgetError: no choice of experts keeps a limit, or only a draw keeps several; names it and the
            smallest value that would do.
        ValueError: no query, a limit without amounts, or an amount that is not finite.
    """
    problem = make_problem(quality, amounts, limits)
    require_feasible(problem)
    if not problem.names:
        return {}
    single = len(problem.names) == 1
    prices = np.array([one_price(problem)[1] * (1 + RAISE)]) if single else several_prices(problem)
    return dict(zip(problem.names, (prices / problem.scales).tolist(), strict=True))


def make_problem(quality: NDArray[np.floating], amounts: Amounts, limits: Mapping[str, float]) -> Problem:
    """Checks and scales. Arguments and errors as `budget_prices`."""
    if quality.ndim != 2 or len(quality) == 0:
        raise ValueError(f"quality has shape {quality.shape}; expected (n, m) with at least one query")
    shape = quality.shape
    scales, found = np.ones(len(limits)), list[Float64Array]()
    for i, (name, limit) in enumerate(limits.items()):
        rows = np.asarray(amounts.get(name, ()), dtype=np.float64)
        if rows.shape not in (shape, shape[1:]) or not np.isfinite(rows).all():
            raise ValueError(
                f"amounts of budget {name} have shape {rows.shape}, {int((~np.isfinite(rows)).sum())} of them not "
                f"finite; expected {shape[1]} finite numbers for all queries or for each of {shape[0]}"
            )
        scales[i] = limit if limit > LEAST_LIMIT else max(float(rows.max(initial=0.0)), 1.0)
        found.append(np.atleast_2d(rows) / scales[i])
    scaled = np.stack(np.broadcast_arrays(*found)) if limits else np.zeros((0, 1, shape[1]))
    limit_row = np.array(list(limits.values()), dtype=np.float64) / scales
    return Problem(tuple(limits), np.asarray(quality, dtype=np.float64), scaled, limit_row, scales)


def require_feasible(problem: Problem) -> None:
    """Raises InfeasibleBudgetError for the first limit that no choice of experts keeps beside all others; where others
    exclude each other, beside those before it."""
    for i, rest in beside_others(range(len(problem.names))):
        least = least_amount(problem, i, rest)
        if least is not None and least > problem.limits[i] * (1 + SLACK):
            raise InfeasibleBudgetError(
                problem.names[i], float(problem.limits[i] * problem.scales[i]), float(least * problem.scales[i])
            )


def beside_others(budgets: Sequence[T]) -> Iterator[tuple[T, list[T]]]:
    """Each budget with all others; then each with those before it, because others may exclude each other."""
    for i, budget in enumerate(budgets):
        yield budget, [*budgets[:i], *budgets[i + 1 :]]
    for i, budget in enumerate(budgets):
        yield budget, list(budgets[:i])


def least_amount(problem: Problem, row: int, rest: list[int]) -> float | None:
    """The least mean amount of one budget that a choice of experts within the `rest` can have; None where none is.

    Queries of equal amounts count as one with their share, so the program has a variable per kind of query and expert.
    """
    if not rest:
        return float(problem.amounts[row].min(axis=1).mean())
    require_installed("a policy with budgets", "scipy")
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, identity, kron

    b, _, m = problem.amounts.shape
    kinds, count = np.unique(problem.amounts.transpose(1, 0, 2).reshape(-1, b * m), axis=0, return_counts=True)
    share = count / count.sum()
    means = (share[:, None, None] * kinds.reshape(-1, b, m)).transpose(1, 0, 2).reshape(b, -1)  # (b, kinds * m)
    found = linprog(
        means[row],
        A_ub=means[rest],
        b_ub=problem.limits[rest] * (1 + SLACK),
        A_eq=csr_array(kron(identity(len(kinds)), np.ones((1, m)))),
        b_eq=np.ones(len(kinds)),
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
    steps = np.diff(np.sort(problem.amounts[0], axis=1), axis=1)
    step = float(steps[steps > 0].min())  # some query has two different amounts, or the price 0 would do
    low, high = 0.0, 2 * float(np.ptp(problem.quality)) / step + 1.0  # at which every query takes the least amount
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if is_kept(middle) else (middle, high)
    return low, high


def cutting_planes(problem: Problem) -> list[Float64Array]:
    """The prices (b,) that were tried on the way to the best ones, which are last (Kelley 1960).

    Starts from every expert alone (a toll of infinity on the others), whose mixtures keep the limits unless only a
    choice by query does.
    """
    m, b = problem.quality.shape[1], len(problem.names)
    played = [problem.play(toll) for toll in np.where(np.eye(m, dtype=bool), 0.0, np.inf)]
    played.append(problem.play(np.zeros(m)))
    tried: list[Float64Array] = [np.zeros(b)]
    for _ in range(CUTS):
        value, prices = master(played, problem.limits)
        tried.append(prices)
        quality, amount = problem.play(problem.tolls(prices))
        if quality + prices @ (problem.limits * (1 + SLACK / 2) - amount) <= value + CUT_TOLERANCE:
            break
        played.append((quality, amount))
    return tried


def several_prices(problem: Problem) -> Float64Array:
    """The prices (b,) of highest sample quality, among those tried, that keep all limits without a draw. Limits are
    tightened step by step while none does. Raises InfeasibleBudgetError."""
    for share in TIGHTENING:
        tight = replace(problem, limits=problem.limits * (1 - share))
        try:
            require_feasible(tight)
        except InfeasibleBudgetError:
            break
        found = [(*problem.play(problem.tolls(prices)), prices) for prices in candidates(cutting_planes(tight))]
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


def master(played: list[tuple[float, Float64Array]], limits: Float64Array) -> tuple[float, Float64Array]:
    """Value and prices (b,) under the cuts: min t + p . limits  s.t.  t >= quality_r - p . amounts_r, p >= 0.

    While no mixture of the cuts keeps the limits prices have no bound; the next cut is then found at very high ones.
    """
    require_installed("a policy with budgets", "scipy")
    from scipy.optimize import linprog

    rows = np.array([[-1.0, *(-amount)] for _, amount in played])
    for highest in (None, HIGHEST_PRICE):
        found = linprog(
            np.array([1.0, *(limits * (1 + SLACK / 2))]),
            A_ub=rows,
            b_ub=[-quality for quality, _ in played],
            bounds=[(None, None), *[(0.0, highest)] * len(limits)],
        )
        if found.x is not None:
            break
    return float(found.fun), np.maximum(found.x[1:], 0.0)
