"""Means with intervals, and differences of them.

Every mean is of values in [0, 1], whose variance is at most that of a coin with the same mean: Wilson's interval is
exact enough for coins and too wide, never too narrow, for the rest.
"""

from __future__ import annotations

import math

import numpy as np

from eval.log.rows import Float64Array
from eval.log.schema import Gap, Rate
from eval.metrics.proportion import wilson_interval


def rate(values: Float64Array, weights: Float64Array | None = None) -> Rate | None:
    """Weighted mean of values (n,) in [0, 1]; NaNs are left out. None where nothing is left.

    With weights, n is the effective sample size (sum w)^2 / sum w^2 (Kish 1965).
    """
    known = np.isfinite(values)
    kept = values[known]
    w = np.ones(len(kept)) if weights is None else weights[known]
    if len(kept) == 0 or not w.sum() > 0:
        return None
    mean = float(np.clip((w * kept).sum() / w.sum(), 0.0, 1.0))
    n = float(w.sum() ** 2 / (w**2).sum())
    low, high = wilson_interval(mean, n)
    return Rate(value=mean, low=low, high=high, n=n)


def gap(after: Rate | None, before: Rate | None) -> Gap | None:
    """after - before, with Newcombe's interval (1998, method 10) from the two intervals."""
    if after is None or before is None:
        return None
    value = after.value - before.value
    down = math.hypot(after.value - after.low, before.high - before.value)
    up = math.hypot(after.high - after.value, before.value - before.low)
    return Gap(value=value, low=value - down, high=value + up)
