"""RouterArena's score of accuracy and cost (Lu et al. 2025, arXiv 2510.00202)."""

from __future__ import annotations

from math import log2

CHEAPEST_USD, DEAREST_USD = 0.0044, 200.0
"""USD per 1,000 queries between which cost counts; outside them it counts as the nearer one."""
BETA = 0.1


def router_arena_score(accuracy: float, cost_per_1k_usd: float) -> float:
    """S = (1 + b) A C / (b A + C) with b = 0.1 and C = (log2 200 - log2 c) / (log2 200 - log2 0.0044), in [0, 1].

    A is the accuracy in [0, 1], c the cost in USD per 1,000 queries, clamped to [0.0044, 200].

    Raises:
        ValueError: accuracy outside [0, 1] or a negative cost.
    """
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy {accuracy:g}; expected 0 to 1")
    if not cost_per_1k_usd >= 0:
        raise ValueError(f"cost {cost_per_1k_usd:g} USD per 1,000 queries; expected 0 or more")
    clamped = min(max(cost_per_1k_usd, CHEAPEST_USD), DEAREST_USD)
    cheapness = (log2(DEAREST_USD) - log2(clamped)) / (log2(DEAREST_USD) - log2(CHEAPEST_USD))
    below = BETA * accuracy + cheapness
    return (1 + BETA) * accuracy * cheapness / below if below > 0 else 0.0
