"""Experts that may serve instead of the planned one, in their order. Pure.

A plan keeps its budgets on average over the traffic, with the experts that it names. An expert may be replaced if it is
down, lacks what the request needs, failed, or another is explored. Its fallback is not in the plan, so each of its
queries must keep every limit on its own. Then no share of fallbacks costs more than the limit on average.

Shapes: k rows of the map, m experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coe.router.policy.budget_price import SLACK, Amounts
from coe.router.types import BoolArray, Float64Array

UNITS = {"active_params_b": "B active", "cost_usd": "USD", "latency_ms": "ms"}


@dataclass(frozen=True)
class Fallbacks:
    """`tolls` (k, m) are taken off predicted quality: what the expert uses of scarce budgets, at their prices. `barred`
    (k, m) says why an expert may not stand in; None where it may."""

    tolls: Float64Array
    barred: tuple[tuple[str | None, ...], ...]


def fallbacks(
    amounts: Amounts, limits: Mapping[str, float], hosted: BoolArray, prices: Mapping[str, float], k: int
) -> Fallbacks:
    """Return the hosted experts with which one query keeps every limit.

    Args:
        amounts: by budget what one query uses, (m,) or (k, m); 0 is free or unknown.
        limits: of those budgets and of `hosted_params_b`, which `hosted` (m,) answers.
        prices: by budget, in quality for a unit; 0 if it is not named.
    """
    shape = k, len(hosted)
    tolls = np.zeros(shape)
    away = f"is not among the experts that fit into hosted_params_b={limits.get('hosted_params_b', 0.0):g}"
    barred = [[None if is_hosted else away for is_hosted in hosted] for _ in range(k)]
    for name, limit in limits.items():
        if name not in amounts:
            continue
        rows = np.broadcast_to(amounts[name], shape)
        tolls += prices.get(name, 0.0) * rows
        for row, expert in np.argwhere(rows > limit * (1 + SLACK)).tolist():
            used = f"a query of this category takes {rows[row, expert]:.3g} {UNITS[name]}"
            barred[row][expert] = barred[row][expert] or f"{used}; the policy allows {name}={limit:g}"
    return Fallbacks(tolls, tuple(tuple(row) for row in barred))
