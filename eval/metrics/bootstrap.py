"""Intervals by resampling queries. Shapes: n queries, a columns (arms), b draws."""

from __future__ import annotations

import numpy as np

from router.types import Float64Array

DRAWS = 2000
Range = tuple[float, float]


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
