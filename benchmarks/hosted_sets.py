"""Sets of experts of highest mean quality that fit in memory, exact up to twelve of them. Shapes: n queries, m experts,
g limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.router.policy.budget_price import SLACK
from coe.router.types import BoolArray, Float64Array

EXHAUSTIVE_EXPERTS = 12
"""Up to so many experts every subset is tried, 4096 of them; beyond, experts are added greedily."""


def hosted_experts(quality: NDArray[np.floating], sizes: NDArray[np.floating], limits: Sequence[float]) -> BoolArray:
    """(g, m) the experts to host under each limit: the subset of highest mean over queries of its best expert's
    predicted quality whose sizes sum to at most the limit; of equal subsets the smaller.

    A facility location problem: exact up to 12 experts. Beyond, the better of two greedy orders, by gain and by gain
    per size (Khuller, Moss & Naor 1999), and never less than under a smaller limit.

    Args:
        quality: (n, m) predicted quality on queries that nothing was fitted on.
        sizes: (m,) billions of parameters or bytes.

    Raises:
        InfeasibleBudgetError: no expert fits within a limit.
    """
    values, wanted = np.asarray(quality, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    for limit in limits:
        if wanted.min() > limit * (1 + SLACK):
            raise InfeasibleBudgetError("hosted_params_b", limit, float(wanted.min()))
    if len(wanted) <= EXHAUSTIVE_EXPERTS:
        return best_subsets(values, wanted, limits)
    return greedy_subsets(values, wanted, limits)


def best_subsets(quality: Float64Array, sizes: Float64Array, limits: Sequence[float]) -> BoolArray:
    """Tries every subset once."""
    masks, means = zip(*subsets(quality, np.zeros(quality.shape[1], dtype=bool), 0, None), strict=True)
    table, value = np.array(masks), np.array(means)
    size = table @ sizes
    order = np.lexsort((size, -value.round(12)))
    found = []
    for limit in limits:
        fits = size[order] <= limit * (1 + SLACK)
        found.append(table[order[int(fits.argmax())]])
    return np.array(found)


def subsets(
    quality: Float64Array, mask: BoolArray, start: int, best: Float64Array | None
) -> Iterator[tuple[BoolArray, float]]:
    """Every subset that adds experts from `start` on to `mask`, with its mean quality. `best` (n,): that of `mask`."""
    for expert in range(start, len(mask)):
        grown = mask.copy()
        grown[expert] = True
        column = quality[:, expert] if best is None else np.maximum(best, quality[:, expert])
        yield grown, float(column.mean())
        yield from subsets(quality, grown, expert + 1, column)


def greedy_subsets(quality: Float64Array, sizes: Float64Array, limits: Sequence[float]) -> BoolArray:
    """The better greedy subset of each limit, or that of a smaller limit where it is better still."""

    def value(mask: BoolArray) -> float:
        return float(quality[:, mask].max(axis=1).mean())

    found: dict[int, BoolArray] = {}
    previous: list[BoolArray] = []
    for i in np.argsort(np.asarray(limits), kind="stable").tolist():
        tried = [greedy(quality, sizes, limits[i], divide) for divide in (np.ones_like(sizes), sizes)] + previous[-1:]
        found[i] = max(tried, key=value)
        previous.append(found[i])
    return np.array([found[i] for i in range(len(limits))])


def greedy(quality: Float64Array, sizes: Float64Array, limit: float, divide: Float64Array) -> BoolArray:
    """Adds the expert of largest gain in mean quality over `divide` (m,) while one fits and helps."""
    mask = np.zeros(len(sizes), dtype=bool)
    best = np.full(len(quality), min(float(quality.min()), 0.0))
    left = limit * (1 + SLACK)
    while True:
        gain = np.maximum(quality - best[:, None], 0.0).mean(axis=0) / np.maximum(divide, SLACK)
        gain[mask | (sizes > left)] = -1.0
        expert = int(gain.argmax())
        if gain[expert] < 0 or (gain[expert] == 0 and mask.any()):
            return mask
        mask[expert] = True
        left -= sizes[expert]
        best = np.maximum(best, quality[:, expert])
