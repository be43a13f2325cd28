"""Intervals by resampling whole groups of rows. Shapes: n rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from coe.router.types import Float64Array, IntArray, Metric

ROUNDS = 1000


def bootstrap_sums(
    columns: Float64Array,
    groups: IntArray,
    statistic: Callable[[Float64Array], Float64Array],
    rng: np.random.Generator,
) -> list[Metric]:
    """Return statistics of column sums with their 95% percentile intervals, by resampling whole groups of rows.

    Answers to one question resemble each other. So a question asked ten times is one draw of ten rows, not ten (cluster
    bootstrap, Field & Welsh 2007). All statistics see the same draws, so the interval of a difference is paired.

    Args:
        columns: values to sum (n, b); `groups` (n,) are any numbers, equal for rows that belong together.
        statistic: computes values (..., s) from sums (..., b).
    """
    _, member = np.unique(groups, return_inverse=True)
    n_groups = int(member.max(initial=-1)) + 1
    sums = np.stack([np.bincount(member, weights=column, minlength=n_groups) for column in columns.T], axis=1)
    values = statistic(sums.sum(axis=0))
    drawn = [np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups) @ sums for _ in range(ROUNDS)]
    draws = statistic(np.stack(drawn))
    return [with_interval(float(value), draws[:, i], len(columns)) for i, value in enumerate(values)]


def paired_means(
    live: Float64Array, candidate: Float64Array, weight: Float64Array, groups: IntArray, rng: np.random.Generator
) -> tuple[Metric, Metric, Metric]:
    """Return weighted means of two arrays (n,) on the same rows, and of their difference; `groups` are resampled."""

    def means(sums: Float64Array) -> Float64Array:
        both = sums[..., 1:] / np.maximum(sums[..., :1], 1e-12)
        return np.concatenate([both, both[..., 1:] - both[..., :1]], axis=-1)

    columns = np.stack([weight, weight * live, weight * candidate], axis=1)
    of_live, of_candidate, of_difference = bootstrap_sums(columns, groups, means, rng)
    return of_live, of_candidate, of_difference


def weighted_mean(sums: Float64Array) -> Float64Array:
    """Return means of shape (..., 1) from sums (..., 2) of weighted values and of weights; NaN without any weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(sums[..., :1] / sums[..., 1:], dtype=np.float64)


def with_interval(value: float, draws: Float64Array, n: int) -> Metric:
    """Return a value with the 2.5 and 97.5 percentiles of its finite bootstrap draws."""
    draws = draws[np.isfinite(draws)]
    if len(draws) == 0:
        return Metric(value=value, n=n)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Metric.within(float(low), value, float(high), n)
