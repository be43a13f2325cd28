"""Differences of mean scores: the share of a gap that routing closes, and what a sample can show of a difference."""

from __future__ import annotations

import math

import numpy as np

from router.types import Float64Array

Z_SHOWN, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Normal quantiles of a 95% interval (two-sided) and of a power of 80%."""


def gap_closed(router: float, best_single: float, query_oracle: float) -> float | None:
    """(router - best single) / (query oracle - best single): 0 is as good as the best single expert, 1 as good as the
    best expert for each query; None where there is no gap. The measure of RouterBench-like comparisons (ROUTING: ours).
    """
    gap = query_oracle - best_single
    return (router - best_single) / gap if gap > 0 else None


def gap_closed_draws(router: Float64Array, best_single: Float64Array, query_oracle: Float64Array) -> Float64Array:
    """`gap_closed` of each bootstrap draw (b,); draws without a gap are left out."""
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
