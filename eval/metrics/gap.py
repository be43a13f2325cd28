"""How much of what routing can win was won."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]


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
