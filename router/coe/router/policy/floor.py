"""The floor of a policy in numbers: the predicted quality that its plan must have. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from coe.base.errors import ConfigError, allowed_values
from coe.router.config.policy import BEST, QUALITY_FLOOR, Floor, QualityFloor
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.quality import QualityMatrix, cautious_quality
from coe.router.strategies.learned import Ways


def floor_of(
    wanted: QualityFloor,
    evidence: QualityMatrix,
    experts: Sequence[str],
    ways: Ways | None,
    others: Mapping[str, SolvedPolicy],
) -> Floor:
    """Return the floor over the traffic's mix of categories, or raise ConfigError if the expert was not measured."""
    quality = cautious_quality(evidence).astype(np.float64)
    mass = evidence.mass / max(float(evidence.mass.sum()), 1e-12)
    if (policy := others.get(wanted.of)) is not None:
        every = quality if ways is None else np.concatenate([quality, ways.cautious], axis=1)
        rows = np.arange(len(mass))
        chosen = policy.plan.choice_of if policy.plan else [policy.expert_of(row)[0] for row in rows.tolist()]
        return Floor(float(mass @ every[rows, chosen]), wanted.within, wanted.of)
    if wanted.of not in (BEST, *experts):
        allowed = allowed_values(wanted.of, experts)
        raise ConfigError(f"{QUALITY_FLOOR}.of: the router has not measured '{wanted.of}'{allowed}")
    means = mass @ quality
    expert = int(means.argmax()) if wanted.of == BEST else experts.index(wanted.of)
    return Floor(float(means[expert]), wanted.within, experts[expert])
