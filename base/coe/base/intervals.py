"""Wilson's interval of a share, which training, evaluation and benchmarks report."""

from __future__ import annotations

import math

Z_95 = 1.959964
"""97.5% quantile of the standard normal."""


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Score interval of a share of n independent draws (Wilson 1927). `n` may be an effective number of draws.

    Raises:
        ValueError: n is not positive.
    """
    if not n > 0:
        raise ValueError(f"n is {n}; expected more than 0")
    z = Z_95
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
