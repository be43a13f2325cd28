"""Calibration of stage 1 on queries it was not fitted on. Shapes: n queries, d dimensions, k categories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router.types import FloatArray
from router.uncertainty import (
    MAX_REFERENCE,
    NEIGHBOURS,
    apply_temperature,
    combine,
    neighbour_distance,
    normalised_entropy,
    quantile_of,
)

TEMPERATURE_RANGE = (0.05, 20.0)
DISTANCE_WEIGHTS = (0.0, 0.25, 0.5, 1.0)
BLOCK_ROWS = 1024


def fit_temperature(probs: FloatArray, labels: NDArray[np.int64]) -> float:
    """T that minimises the negative log-likelihood of softmax(log p / T) on held-out (n, k) (Guo et al. 2017)."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        calibrated = apply_temperature(probs, float(np.exp(log_temperature)))
        return float(-np.log(np.maximum(calibrated[rows, labels], 1e-12)).mean())

    bounds = (float(np.log(TEMPERATURE_RANGE[0])), float(np.log(TEMPERATURE_RANGE[1])))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def error_auroc(uncertainty: FloatArray, is_correct: NDArray[np.bool_]) -> float:
    """Probability that a wrong query is more uncertain than a right one (ties count half); 0.5 without both."""
    from scipy.stats import rankdata

    n_wrong, n_right = int((~is_correct).sum()), int(is_correct.sum())
    if n_wrong == 0 or n_right == 0:
        return 0.5
    ranks = rankdata(uncertainty)
    return float((ranks[~is_correct].sum() - n_wrong * (n_wrong + 1) / 2) / (n_wrong * n_right))


def distance_to_others(embeddings: FloatArray, kept: FloatArray) -> FloatArray:
    """Distance (n,) of each row to its nearest kept rows but itself, as `neighbour_distance` of a query not in the set.

    A row that is kept finds itself at distance 0; its nearest one is left out, so repeated texts still count once.
    """
    keys = {row.tobytes() for row in kept}
    distances = np.zeros(len(embeddings), dtype=np.float32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = embeddings[start : start + BLOCK_ROWS]
        nearest = -np.sort(-(block @ kept.T), axis=1)[:, : NEIGHBOURS + 1]
        is_kept = np.array([row.tobytes() in keys for row in block])
        without_self = nearest[:, 1:] if nearest.shape[1] > 1 else nearest
        mean = np.where(is_kept, without_self.mean(axis=1), nearest[:, :NEIGHBOURS].mean(axis=1))
        distances[start : start + BLOCK_ROWS] = 1.0 - mean
    return distances


def fit_uncertainty(
    *,
    reference: FloatArray,
    others: FloatArray,
    probs: FloatArray,
    is_correct: NDArray[np.bool_],
    temperature: float,
    rng: np.random.Generator,
) -> dict[str, NDArray[np.generic]]:
    """Arrays of `router.uncertainty.Uncertainty`.

    Args:
        reference: (r, d) training queries of known categories; the first r rows of `probs` are theirs, out of fold.
        others: (o, d) queries that belong to `general`; the last o rows of `probs` are theirs.
        probs: (r + o, k) before calibration; `is_correct` (r + o,).

    The weight of the distance is the one that best separates wrong from right (area under the ROC curve).
    """
    kept = reference
    if len(reference) > MAX_REFERENCE:
        kept = reference[np.sort(rng.choice(len(reference), MAX_REFERENCE, replace=False))]
    own = distance_to_others(reference, kept)
    distances = np.sort(own)
    beyond = neighbour_distance(others, kept) if len(others) else np.zeros(0, dtype=np.float32)
    quantiles = quantile_of(np.concatenate([own, beyond]), distances)
    entropy = normalised_entropy(apply_temperature(probs, temperature))
    weight = max(DISTANCE_WEIGHTS, key=lambda w: error_auroc(combine(entropy, quantiles, w), is_correct))
    return {
        "reference": kept.astype(np.float16),
        "held_out_distances": distances.astype(np.float32),
        "held_out_scores": combine(entropy, quantiles, weight),
        "held_out_correct": is_correct.astype(np.uint8),
        "weight": np.array([weight], dtype=np.float32),
    }
