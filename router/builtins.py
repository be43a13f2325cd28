"""Experts that are not language models: what was measured of them, and when one answers in the planned expert's place.

Such an expert abstains from most queries, so its mean score says little. What counts is how often it is right when it
answers, by category. It answers first where that surely beats the planned expert's quality; otherwise nothing changes,
and no plan or budget knows of it, because what it answers only takes load off the plan. Pure.

Shapes: k learned categories (row k is `general`), b builtin experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from base.intervals import wilson_interval
from router.types import DecisionReason, FloatArray, RoutingDecision

MOST_FROM_OTHERS = 5.0
"""Answers in other categories count for a category as at most so many of its own: an expert that is right about all
that it understands is trusted a little where it was never seen to answer (ours)."""

CACHE = "cache"
"""The kind of builtin expert that repeats what another has answered."""

ABSTAINED_STATUS, ABSTAINED = 422, "abstained"
"""The answer of such an expert that a client named, and that has none."""

ANSWERS, ABSTAINS, UNPROVEN = "answers", "abstains", "could answer, but is not surely better than the planned expert"


@dataclass(frozen=True)
class Builtins:
    """`precision` (k+1, b): share of its answers that are right; `sure` (k+1, b): the lower end of its 95% interval.

    `trusted`: those that answer first whenever they can, because what they say was measured before: caches.
    `pins`: by policy the rows that experts.yaml gives to a builtin expert, whatever was measured.
    """

    names: tuple[str, ...] = ()
    precision: FloatArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    sure: FloatArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    pins: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    trusted: frozenset[str] = frozenset()

    def applied(self, decision: RoutingDecision, row: int, answering: Sequence[str]) -> RoutingDecision:
        """The decision with what builtin experts made of it; `answering` are those that have an answer."""
        quality = dict(zip(decision.eligible, decision.predicted_quality, strict=True))[decision.ranking[0]]
        pinned = self.pins.get(decision.policy, {}).get(row)
        able = [e for e, name in enumerate(self.names) if name in answering]
        proven = [] if decision.reason is DecisionReason.PINNED else [e for e in able if self.sure[row, e] > quality]
        first = next((e for e in able if self.names[e] == pinned or self.names[e] in self.trusted), None)
        if first is None and proven:
            first = max(proven, key=lambda e: self.sure[row, e])
        notes = {name: UNPROVEN if e in able else ABSTAINS for e, name in enumerate(self.names)}
        if first is None:
            return decision.model_copy(update={"builtins": notes})
        name, none = self.names[first], (0.0,) * len(decision.eligible)
        changes = {
            "expert": name,
            "reason": DecisionReason.PINNED if name == pinned else DecisionReason.BUILTIN,
            "runner_up": decision.ranking[0],
            "ranking": (name, *decision.ranking),
            "eligible": (name, *decision.eligible),
            "eligible_probs": (1.0, *none),
            "predicted_quality": (float(self.precision[row, first]), *decision.predicted_quality),
            "predicted_cost_usd": (0.0, *decision.predicted_cost_usd),
            "predicted_wait_ms": (None, *decision.predicted_wait_ms),
            "propensity": 1.0,
            "seed": None,
            "stay": None,
            "builtins": notes | {name: ANSWERS},
        }
        return decision.model_copy(update=changes)


def measured_builtins(
    names: tuple[str, ...], answered: FloatArray, right: FloatArray, pins: Mapping[str, Mapping[int, str]]
) -> Builtins:
    """Builtin experts whose answers were graded: `answered` counts them, `right` sums their scores, both (k+1, b)."""
    elsewhere, right_elsewhere = answered.sum(axis=0) - answered, right.sum(axis=0) - right
    borrowed = np.minimum(elsewhere, MOST_FROM_OTHERS)
    counted = answered + borrowed
    summed = right + borrowed * right_elsewhere / np.maximum(elsewhere, 1)
    precision = summed / np.maximum(counted, 1e-9)
    sure = np.zeros_like(precision)
    for cell in np.argwhere(counted > 0):
        sure[tuple(cell)] = wilson_interval(min(float(precision[tuple(cell)]), 1.0), float(counted[tuple(cell)]))[0]
    return Builtins(names, precision.astype(np.float32), sure.astype(np.float32), pins)
