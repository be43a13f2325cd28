"""How large a difference a sample can show, and how large a sample a difference needs."""

from __future__ import annotations

import math

Z_SHOWN, Z_POWER = 1.959963984540054, 0.8416212335729143
"""Normal quantiles of a 95% interval (two-sided) and of a power of 80%."""


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
