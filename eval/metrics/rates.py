"""Means with intervals, and differences of them.

Every mean is of values in [0, 1], whose variance is at most that of a coin with the same mean: Wilson's interval is
accurate for values of 0 or 1, and too wide, never too narrow, for other values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from base.intervals import wilson_interval
from router.types import Float64Array, IntArray, Record


class Rate(Record):
    """A mean in [0, 1] or a share, with its interval and the (effective) number of answers behind it."""

    value: float
    low: float
    high: float
    n: float


class Gap(Record):
    """A difference of two rates."""

    value: float
    low: float
    high: float


def rate(values: Float64Array, weights: Float64Array | None = None, clusters: Sequence[IntArray] = ()) -> Rate | None:
    """Weighted mean of values (n,) in [0, 1]; NaNs are left out. None where nothing is left.

    With weights, n is the effective sample size (sum w)^2 / sum w^2 (Kish 1965).

    Args:
        clusters: ways (n,) in which values belong together, such as question and key: ten answers to one question are
            not ten independent ones. n is divided by the largest design effect of them.
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
    """Kish's sample size of weights (n,), over the largest design effect of several ways to cluster, at least 1.

    A design effect is the variance of the mean by whole clusters over that by single values (Kish 1965): sum over
    clusters of (sum of residuals)^2, times G / (G - 1) for G clusters, over the sum of squared residuals. One cluster
    says nothing about its own variance, so it is left out. Where no value differs from the mean there is nothing to
    compare, and every cluster counts once at most.
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


def gap(after: Rate | None, before: Rate | None) -> Gap | None:
    """after - before, with Newcombe's interval (1998, method 10) from the two intervals."""
    if after is None or before is None:
        return None
    value = after.value - before.value
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Gap(value=value, low=value - down, high=value + up)
