"""Intervals by resampling queries, the share of a gap that routing closes, and what a sample can show of a difference.

Shapes: n queries, a columns (arms), b draws."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from router.types import Float64Array, Record

DRAWS = 2000
Range = tuple[float, float]
Z_SHOWN, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Normal quantiles of a 95% interval (two-sided) and of a power of 80%."""


def bootstrap_means(values: Float64Array, rng: np.random.Generator, draws: int = DRAWS) -> Float64Array:
    """Means (b, a) of the columns of `values` (n, a) over b samples of n queries drawn with replacement.

    Every column is averaged over the same sample, so differences of columns are paired (Efron & Tibshirani 1993, ch. 8:
    the unit that is resampled is the query with all that was measured on it).

    Raises:
        ValueError: there is no query.
    """
    n = values.shape[0]
    if n == 0:
        raise ValueError("no query to resample; expected at least one")
    means = np.empty((draws, values.shape[1]), dtype=np.float64)
    for draw in range(draws):
        means[draw] = np.bincount(rng.integers(n, size=n), minlength=n) @ values
    return np.asarray(means / n, dtype=np.float64)


def percentile_interval(draws: Float64Array) -> Range:
    """The 2.5% and 97.5% quantiles of draws (b,): a percentile interval at 95% (Efron 1979)."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


class Estimate(Record):
    """A figure with its interval over queries; of a difference it is paired."""

    mean: float
    interval: Range

    @classmethod
    def of(cls, value: float, draws: Float64Array) -> Self:
        """A value with the percentile interval of its draws (b,)."""
        return cls(mean=float(value), interval=percentile_interval(draws))


def gap_closed(router: Float64Array, best_single: Float64Array, query_oracle: Float64Array) -> Float64Array:
    """(router - best single) / (query oracle - best single) of each value (b,): 0 is as good as the best single expert,
    1 as good as the best expert for each query; those without a gap are left out. The measure of RouterBench-like
    comparisons (ROUTING: ours)."""
    gap = query_oracle - best_single
    has_gap = gap > 0
    return np.asarray((router - best_single)[has_gap] / gap[has_gap], dtype=np.float64)


def smallest_shown(standard_error: float) -> float:
    """The true difference of which a 95% interval leaves out zero four times in five: (z_0.975 + z_0.8) standard errors
    (Chow, Shao & Wang 2008, ch. 3.1, the paired test of means)."""
    return (Z_SHOWN + Z_POWER) * standard_error


def queries_to_show(difference: float, standard_error: float, n: int) -> int | None:
    """Queries that show a difference so, where n leave that standard error, which falls with the square root of n. None
    where the n queries differ in nothing, so that they say nothing of how many it takes.

    Raises:
        ValueError: the difference is not above 0.
    """
    if difference <= 0:
        raise ValueError(f"difference {difference:g} is not allowed; expected more than 0")
    if standard_error <= 0:
        return None
    return math.ceil(n * (smallest_shown(standard_error) / difference) ** 2 - 1e-9)
