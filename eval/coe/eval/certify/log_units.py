"""Units of the decision log: whole keys, or whole questions if only one key asks. Each unit has the mean gain of its
rated answers, doubly robust by the logged probabilities. Shapes: k rows of the map, m experts, c plans."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import UTC, datetime

import numpy as np

from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.read import read_records, read_rewards, why_dropped
from coe.decision_log.sql_engine import open_log
from coe.eval.certify.ladder import Ladder
from coe.eval.certify.units import Units
from coe.router.config.feedback import FeedbackConfig
from coe.router.types import Float64Array
from coe.training.types import question_of

MAX_WEIGHT = 50.0
"""Largest importance weight (ours). If either expert was less likely than its inverse, the plan gets the worst gain."""


def log_units(database_url: str, ladder: Ladder, feedback: FeedbackConfig, since: float) -> Units:
    """Return units since a time (Unix seconds), in order, from decisions of the ladder's own router. Each key counts
    once, so a busy key weighs no more than a quiet one.

    Raises:
        StoreError: the log cannot be opened, as in `open_log`.
    """
    with open_log(database_url) as connection:
        rewards = read_rewards(connection, feedback.key_weights)
        rated = [
            record
            for record in read_records(connection, since)
            if why_dropped(record, rewards) is None
            and record.decision is not None
            and record.decision.router_version == ladder.router.version
        ]
    has_keys = len({record.key_id for record in rated}) > 1
    clusters = defaultdict[object, list[Float64Array]](list)
    for record in rated:
        cluster = record.key_id if has_keys else question_of(record)
        clusters[cluster].append(gains_of_record(record, rewards[record.decision_id], ladder))
    means = np.array([np.mean(each, axis=0) for each in clusters.values()]).reshape(-1, len(ladder.names), 2)
    base = np.array([ladder.price[:, 0].mean()] * len(means))
    return Units(
        means[..., 0],
        np.full(len(means), 1.0 + MAX_WEIGHT),
        means[..., 1],
        base,
        n_graded=len(rated),
        since="" if not rated else datetime.fromtimestamp(rated[0].at, UTC).isoformat(timespec="seconds"),
        fingerprint=hashlib.sha256(means.tobytes()).hexdigest()[:16],
        unit_names=("key", "keys") if has_keys else ("question", "questions"),
    )


def gains_of_record(record: DecisionRecord, reward: float, ladder: Ladder) -> Float64Array:
    """Return the gain and saving of each plan on one answer (c, 2): q(plan) - q(reference), corrected if either gave
    it. If a plan asks several experts, or one was too unlikely, its gain is -1, the worst there is."""
    decision = record.decision
    assert decision is not None, "a rated answer has a decision"
    row, experts = ladder.router.categories.index(decision.category), ladder.router.experts
    chance = dict(zip(decision.eligible, decision.eligible_probs, strict=False))
    quality = dict(zip(decision.eligible, decision.predicted_quality, strict=False))
    reference, *plans = ladder.by_row[row].tolist()

    def value(choice: int) -> float:
        name = experts[choice] if choice < len(experts) else ""
        if chance.get(name, 0.0) < 1.0 / MAX_WEIGHT:
            return np.nan
        corrected = (reward - quality[name]) / chance[name] if name == decision.expert else 0.0
        return quality[name] + corrected

    of_reference = value(reference)
    gains = [0.0 if plan == reference else np.nan_to_num(value(plan) - of_reference, nan=-1.0) for plan in plans]
    return np.stack([gains, ladder.price[row, reference] - ladder.price[row, plans]], axis=1)
