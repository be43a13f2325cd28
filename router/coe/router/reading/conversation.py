"""A conversation: what is classified of it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from coe.router.types import FloatArray

SELF_CONTAINED_BYTES = 16
"""Length in UTF-8 at which an ask that is classified with certainty counts as much as all before it. Bytes, because a
word of a script without spaces is a few characters. Chosen on benchmarks/follow_ups/dev.jsonl."""

LEAST_SHARE = 0.1
"""Least share of earlier asks; where less is left for them, they are not looked at."""


def own_share(ask: str, confidence: float) -> float:
    """Return an ask's share in the joint meaning of it and earlier asks, in [0, 1): s / (1 + s), s = p (bytes / 16)^2.
    "and in Spanish?" says little alone, and p, the probability of its most likely category, shows it. A sentence that
    names its task needs nothing before it."""
    strength = confidence * (len(ask.encode("utf-8", "replace")) / SELF_CONTAINED_BYTES) ** 2
    return strength / (1 + strength)


def in_context(
    asks: Sequence[str], encode: Callable[[str], FloatArray], confidence: Callable[[FloatArray], float]
) -> FloatArray:
    """Return the vector of a conversation, (1, d): the sum of its asks' vectors by share, of unit length. The last ask
    takes its own share, the one before it its own share of the rest, and so on until nearly nothing is left. The vector
    of a self-contained ask is therefore its own, to the last bit.

    Args:
        asks: newest first, at least one.
        encode: returns the vector (1, d) of a text.
        confidence: returns the probability of the most likely category of a vector (1, d).
    """
    rest, total = 1.0, np.zeros(0, dtype=np.float32)
    for place, ask in enumerate(asks, start=1):
        vector = encode(ask)
        share = rest if place == len(asks) else rest * own_share(ask, confidence(vector))
        if rest - share < LEAST_SHARE:
            share = rest
        if share == 1.0:
            return vector
        total = share * vector if place == 1 else total + share * vector
        rest -= share
        if rest == 0.0:
            break
    return np.asarray(total / max(float(np.linalg.norm(total)), 1e-12), dtype=np.float32)
