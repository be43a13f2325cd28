"""Metrics of stage 1 on queries it never saw. Shapes: n queries, k categories."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from base.intervals import wilson_interval
from router.protocols import CategoryClassifier
from router.types import FloatArray, IntArray, Interval, Metric
from router.uncertainty import Uncertainty, apply_temperature, expected_calibration_error


def wilson(successes: int, n: int) -> Metric:
    """A share with its 95% Wilson score interval (Wilson 1927); 0 of 0 has the interval [0, 1]."""
    if n == 0:
        return Metric(value=0.0, interval=Interval(low=0.0, high=1.0), n=0)
    share = successes / n
    low, high = wilson_interval(share, n)
    return Metric(value=share, interval=Interval(low=low, high=high), n=n)


def macro_f1(labels: IntArray, predicted: IntArray, k: int) -> float:
    """Mean over categories that occur of 2TP / (2TP + FP + FN)."""
    scores = []
    for label in range(k):
        hits = int(((labels == label) & (predicted == label)).sum())
        wrong = int(((labels == label) != (predicted == label)).sum())
        if (labels == label).any():
            scores.append(2 * hits / (2 * hits + wrong))
    return float(np.mean(scores)) if scores else 0.0


def stage_one_metrics(
    classifier: CategoryClassifier,
    temperature: float,
    uncertainty: Mapping[str, NDArray[np.generic]],
    embeddings: FloatArray,
    labels: IntArray,
    alpha: float,
) -> dict[str, Metric]:
    """Figures on held-out queries.

    Args:
        labels: (n,), k for queries that belong to `general`.

    Returns:
        `category_accuracy` and `macro_f1` before the fallback; `coverage`, the share of queries not sent to general;
        `error_when_sure`, what is misclassified of those (the promise: at most alpha); `ece`, calibration error;
        `general_recall`, the share of `general` queries that were sent there.
    """
    k = len(classifier.categories_)
    probs = apply_temperature(classifier.predict_proba(embeddings).probs, temperature)
    fitted = Uncertainty.from_state(uncertainty, alpha=alpha)
    sure = fitted.score(embeddings, probs) <= fitted.threshold
    known = labels < k
    predicted = probs.argmax(axis=1)
    right = (predicted == labels) & known
    return {
        "category_accuracy": wilson(int(right.sum()), int(known.sum())),
        "macro_f1": Metric(value=macro_f1(labels[known], predicted[known], k), n=int(known.sum())),
        "coverage": wilson(int((sure & known).sum()), int(known.sum())),
        "error_when_sure": wilson(int((sure & ~right).sum()), int(sure.sum())),
        "ece": Metric(value=expected_calibration_error(probs[known], labels[known]), n=int(known.sum())),
        "general_recall": wilson(int((~sure & ~known).sum()), int((~known).sum())),
    }
