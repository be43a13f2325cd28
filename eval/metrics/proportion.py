"""Intervals of shares."""

from __future__ import annotations

from base.intervals import wilson_interval
from router.types import Float64Array


def clustered_share(hits: Float64Array, draws: Float64Array) -> tuple[float, float, float]:
    """Share of draws that hit, and its interval, when the draws of one text depend on each other.

    Args:
        hits: (n,) number of hits of each text.
        draws: (n,) number of draws of each text, at least one each.

    Wilson's interval at the effective number of draws share (1 - share) / variance, the variance being that of a ratio
    of sums over texts; at least the number of texts (Korn & Graubard 1998: where nothing varies, as when nothing hits,
    the variance says nothing) and at most the number of draws.

    Raises:
        ValueError: there is no text.
    """
    n, total = len(hits), float(draws.sum())
    if n == 0:
        raise ValueError("no text; expected at least one")
    share = float(hits.sum()) / total
    variance = float(((hits - share * draws) ** 2).sum()) / total**2 * n / max(n - 1, 1)
    effective = share * (1 - share) / variance if variance > 0 else float(n)
    return (share, *wilson_interval(share, min(max(effective, float(n)), total)))
