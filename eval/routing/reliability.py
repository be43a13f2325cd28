"""Calibration of probabilities and predicted scores, and confusion of categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from eval.metrics.calibration import brier, calibration_error, reliability_bins
from eval.routing.routing_records import Calibration, Confusion, ReliabilityPoint
from eval.routing.trial import Trial
from router.types import Float64Array

CATEGORY = "category"
SHOWN_CATEGORIES = 20
OTHER = "(other)"


def build_calibration(trial: Trial) -> dict[str, Calibration]:
    """`category`: the confidence in the most likely category against whether it is the true one. Of each method: its
    predicted score of the expert that it chose, cut to [0, 1], against the real score."""
    right = np.array([a == b for a, b in zip(trial.likely, trial.test.categories, strict=True)], dtype=np.float64)
    found = {CATEGORY: calibration(np.array([d.confidence for d in trial.decisions]), right)}
    rows = np.arange(len(trial.scores))
    for method in trial.methods:
        predicted = np.clip(method.quality[rows, method.chosen], 0.0, 1.0).astype(np.float64)
        found[method.name] = calibration(predicted, trial.scores[rows, method.chosen])
    return found


def calibration(predicted: Float64Array, observed: Float64Array) -> Calibration:
    """Calibration of predictions (n,) in [0, 1] against what came of them (n,)."""
    bins = reliability_bins(predicted, observed)
    rows = zip(bins.predicted.tolist(), bins.observed.tolist(), bins.count.tolist(), strict=True)
    return Calibration(
        n=len(predicted),
        ece=calibration_error(predicted, observed),
        brier=brier(predicted, observed),
        points=tuple(ReliabilityPoint(predicted=p, observed=o, count=c) for p, o, c in rows),
    )


def build_confusion(categories: Sequence[str], likely: Sequence[str], shown: int = SHOWN_CATEGORIES) -> Confusion:
    """Counts of true (row) by most likely (column) category: the `shown` largest true ones, then all others as one."""
    largest = [name for name, _ in Counter(categories).most_common(shown)]
    names = largest if set(categories) | set(likely) <= set(largest) else [*largest, OTHER]
    number = {name: i for i, name in enumerate(largest)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for true, found in zip(categories, likely, strict=True):
        counts[number.get(true, len(largest)), number.get(found, len(largest))] += 1
    return Confusion(categories=tuple(names), counts=tuple(tuple(row) for row in counts.tolist()))
