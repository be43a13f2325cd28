"""Means and differences with intervals, by formula or by resampling queries. The share of a gap that routing closes.
The differences that a sample can show.

`rate` is of values in [0, 1], whose variance is at most that of a coin with the same mean. So Wilson's interval is
accurate for values of 0 or 1, and too wide, never too narrow, for other values. Shapes: n queries, a columns (arms), b
draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np

from coe.base.shares import wilson_interval
from coe.router.types import Float64Array, IntArray, Record

DRAWS = 2000
Range = tuple[float, float]
Z_SHOWN, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Normal quantiles of a 95% interval (two-sided) and of a power of 80%."""


def bootstrap_means(values: Float64Array, rng: np.random.Generator, draws: int = DRAWS) -> Float64Array:
    """Return the means (b, a) of the columns of `values` (n, a) over b samples of n queries drawn with replacement.

    Every column is averaged over the same sample, so differences of columns are paired. The resampled unit is the query
    with all of its measurements (Efron & Tibshirani 1993, ch. 8).

    Raises:
        ValueError: `values` has no query.
    """
    n = values.shape[0]
    if n == 0:
        raise ValueError("no query to resample; expected at least one")
    means = np.empty((draws, values.shape[1]), dtype=np.float64)
    for draw in range(draws):
        means[draw] = np.bincount(rng.integers(n, size=n), minlength=n) @ values
    return np.asarray(means / n, dtype=np.float64)


def percentile_interval(draws: Float64Array) -> Range:
    """Return the 2.5% and 97.5% quantiles of draws (b,): a percentile interval at 95% (Efron 1979)."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


class Estimate(Record):
    """A figure with its interval over queries; a difference has a paired interval."""

    mean: float
    interval: Range

    @classmethod
    def of(cls, value: float, draws: Float64Array) -> Self:
        """Build an estimate from a value and the percentile interval of its draws (b,)."""
        return cls(mean=float(value), interval=percentile_interval(draws))

    @property
    def value(self) -> float:
        return self.mean


def gap_closed(router: Float64Array, best_single: Float64Array, query_oracle: Float64Array) -> Float64Array:
    """Return (router - best single) / (query oracle - best single) of each value (b,); values without a gap are left
    out. 0 is as good as the best single expert, 1 as good as the best expert for each query. RouterBench-like
    comparisons use the same measure (ours)."""
    gap = query_oracle - best_single
    has_gap = gap > 0
    return np.asarray((router - best_single)[has_gap] / gap[has_gap], dtype=np.float64)


def smallest_shown(standard_error: float) -> float:
    """Return the true difference whose 95% interval excludes zero four times in five: (z_0.975 + z_0.8) standard
    errors (Chow, Shao & Wang 2008, ch. 3.1, the paired test of means)."""
    return (Z_SHOWN + Z_POWER) * standard_error


def queries_to_show(difference: float, standard_error: float, n: int) -> int | None:
    """Return how many queries show a difference with a power of 80%, if n queries leave that standard error. It falls
    with the square root of n. None if the standard error is 0, so the n queries give no estimate.

    Raises:
        ValueError: the difference is not above 0.
    """
    if difference <= 0:
        raise ValueError(f"difference {difference:g} is not allowed; expected more than 0")
    if standard_error <= 0:
        return None
    return math.ceil(n * (smallest_shown(standard_error) / difference) ** 2 - 1e-9)


class Rate(Record):
    """A mean in [0, 1] or a share, with its 95% interval and the (effective) number of answers behind it."""

    value: float
    low: float
    high: float
    n: float

    @property
    def interval(self) -> Range:
        return self.low, self.high


def rate(values: Float64Array, weights: Float64Array | None = None, clusters: Sequence[IntArray] = ()) -> Rate | None:
    """Return the weighted mean of values (n,) in [0, 1], without NaNs; None if no value is left.

    With weights, n is the effective sample size (sum w)^2 / sum w^2 (Kish 1965).

    Args:
        clusters: groupings (n,) of dependent values, such as question and key: ten answers to one question are not ten
            independent ones. n is divided by their largest design effect.
    """
    known = np.isfinite(values)
    kept = values[known]
    w = np.ones(len(kept)) if weights is None else weights[known]
    if len(kept) == 0 or not w.sum() > 0:
        return None
    mean = float(np.clip((w * kept).sum() / w.sum(), 0.0, 1.0))
    n = effective_count(w * (kept - mean), w, [own[known] for own in clusters])
    low, high = wilson_interval(mean, n)
    return Rate(value=mean, low=low, high=high, n=n)


def effective_count(residuals: Float64Array, w: Float64Array, clusters: Sequence[IntArray]) -> float:
    """Return Kish's sample size of weights (n,) over the largest design effect of several clusterings, at least 1.

    A design effect is the variance of the mean by whole clusters over that by single values (Kish 1965). With G
    clusters it is G / (G - 1) times the sum over clusters of (sum of residuals)^2, over the sum of squared residuals.
    One cluster says nothing about its own variance, so it is left out. If no value differs from the mean, every cluster
    counts once at most.
    """
    sizes = [w**2]
    squares, effect = float((residuals**2).sum()), 1.0
    for own in clusters:
        _, member = np.unique(own, return_inverse=True)
        if (count := int(member.max()) + 1) < 2:
            continue
        sizes.append(np.bincount(member, weights=w).astype(np.float64) ** 2)
        if squares > 1e-12:
            sums = np.bincount(member, weights=residuals)
            effect = max(effect, float((sums**2).sum()) / squares * count / (count - 1))
    plain = [float(w.sum() ** 2 / own.sum()) for own in sizes]
    return max(plain[0] / effect if squares > 1e-12 else min(plain), 1.0)
