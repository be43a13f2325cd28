"""Fits what decides in a cascade. Shapes: n answers of the cheap expert, f features, b knots."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from router.cascade import ReplyGain, reply_terms
from router.errors import DataError
from router.types import FloatArray
from training.types import OutcomeTable

FOLDS = 5
MIN_FOR_ISOTONIC = 1000
"""With less, isotonic calibration overfits and Platt's alone is better (Niculescu-Mizil & Caruana 2005)."""

MIN_REPLIES = 60
"""Fewest replies of known length from which a gain is learned: as many as a stack needs (ours)."""

RIDGE = 1.0
"""L2 penalty on the weights of standardised terms; hardly matters, for there are nine of them."""

IDENTITY = np.array([0.0, 1.0])


def fit_gate(
    features: FloatArray, is_correct: NDArray[np.bool_], rng: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Arrays of `router.cascade.Gate` from features (n, f) and whether each answer was right (n,).

    Logistic regression on standardised features; calibrated on out-of-fold log-odds, so not on what it was fitted on.

    Raises:
        DataError: fewer than 5 right or 5 wrong answers.
    """
    n_right, n_wrong = int(is_correct.sum()), int((~is_correct).sum())
    if min(n_right, n_wrong) < FOLDS:
        raise DataError(f"a gate needs {FOLDS} right and {FOLDS} wrong answers; got {n_right} and {n_wrong}")
    folds = np.zeros(len(features), dtype=np.int64)
    for members in (np.flatnonzero(is_correct), np.flatnonzero(~is_correct)):
        folds[rng.permutation(members)] = np.arange(len(members)) % FOLDS
    log_odds = np.zeros(len(features))
    for fold in range(FOLDS):
        weights, bias = fit_logistic(features[folds != fold], is_correct[folds != fold])
        log_odds[folds == fold] = features[folds == fold] @ weights + bias
    slope, offset = fit_logistic(log_odds[:, None], is_correct)
    calibrated = 1.0 / (1.0 + np.exp(-(slope[0] * log_odds + offset)))
    knots, levels = isotonic(calibrated, is_correct) if len(features) >= MIN_FOR_ISOTONIC else (IDENTITY, IDENTITY)
    weights, bias = fit_logistic(features, is_correct)
    return {
        "weights": (slope[0] * weights).astype(np.float32),
        "bias": np.array([slope[0] * bias + offset], dtype=np.float32),
        "knots": knots.astype(np.float32),
        "levels": levels.astype(np.float32),
    }


def fit_logistic(features: NDArray[np.floating], is_correct: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Weights (f,) and bias, in the units of the features, which are standardised for the fit: the L2 penalty is fair.

    A feature that does not vary gets the weight 0.
    """
    from sklearn.linear_model import LogisticRegression

    mean, scale = standard_units(features)
    model = LogisticRegression(max_iter=1000).fit((features - mean) / scale, is_correct)
    weights = model.coef_[0] / scale
    return weights, float(model.intercept_[0] - mean @ weights)


def standard_units(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (f,); infinity for a feature that does not vary, which so counts for nothing."""
    mean, spread = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    return mean, np.where(spread > 1e-9, spread, np.inf)


def isotonic(
    probs: NDArray[np.float64], is_correct: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots and levels (b,) of centred isotonic regression (Oron & Flournoy 2017): each flat stretch of the ascending
    function nearest to the outcomes becomes one knot at its mean, with lines between, so that order is kept.

    The ends go to almost 0 and 1: n answers cannot tell more (Laplace's rule).
    """
    from sklearn.isotonic import IsotonicRegression

    least = 1.0 / (len(probs) + 2)
    fitted = IsotonicRegression(y_min=least, y_max=1.0 - least).fit_transform(probs, is_correct)
    levels, block = np.unique(fitted, return_inverse=True)
    centres = np.bincount(block, weights=probs) / np.bincount(block)
    return np.concatenate([[0.0], centres, [1.0]]), np.concatenate([[least], levels, [1.0 - least]])


def fit_reply_gain(table: OutcomeTable, kind: str, predicted: FloatArray) -> ReplyGain | None:
    """Ridge regression of the difference between two experts' scores; the weak one has the lower mean score.

    Args:
        kind: of the scorer that predicted.
        predicted: (n, 2) qualities of queries that the scorer was not fitted on.

    Returns:
        None unless there are two experts and MIN_REPLIES replies of the weak one whose length and scores are known.
    """
    if len(table.experts) != 2:
        return None
    scores = table.scores.astype(np.float64)
    complete = np.isfinite(scores).all(axis=1)
    if not complete.any():
        return None
    weak, strong = np.argsort(scores[complete].mean(axis=0), kind="stable").tolist()
    tokens = table.output_tokens[:, weak].astype(np.float64)
    known = complete & np.isfinite(tokens)
    if known.sum() < MIN_REPLIES:
        return None
    qualities = predicted[known].astype(np.float64)
    terms = reply_terms(qualities[:, weak], qualities[:, strong], tokens[known])
    weights, bias = fit_ridge(terms, scores[known, strong] - scores[known, weak])
    return ReplyGain(
        weak=table.experts[weak], strong=table.experts[strong], kind=kind, weights=tuple(weights.tolist()), bias=bias
    )


def fit_ridge(features: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Weights (f,) and bias in the units of the features (n, f), which are standardised so that the penalty is fair."""
    from sklearn.linear_model import Ridge

    mean, scale = standard_units(features)
    model = Ridge(alpha=RIDGE).fit((features - mean) / scale, target)
    weights = np.asarray(model.coef_ / scale, dtype=np.float64)
    return weights, float(model.intercept_ - mean @ weights)
