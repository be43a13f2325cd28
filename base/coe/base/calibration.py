"""Calibration: how well predicted shares come true. Shapes: n predictions, r bins that hold any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.floating]

BINS = 15
"""As Guo et al. 2017 (arXiv 1706.04599)."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Bins of equal width that hold any prediction: mean prediction, mean outcome and count, each (r,)."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    count: NDArray[np.int64]


def reliability_bins(predicted: Shares, observed: Shares, bins: int = BINS) -> ReliabilityBins:
    """`bins` bins of equal width over [0, 1], the last one closed at 1.

    Args:
        predicted: (n,) in [0, 1].
        observed: (n,) what came of it: 0 or 1, or a score in [0, 1].

    Raises:
        ValueError: a prediction outside [0, 1].
    """
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError(f"predictions from {predicted.min():g} to {predicted.max():g}; expected 0 to 1")
    number = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    count = np.bincount(number, minlength=bins)
    used = count > 0
    return ReliabilityBins(
        predicted=np.bincount(number, weights=predicted, minlength=bins)[used] / count[used],
        observed=np.bincount(number, weights=observed, minlength=bins)[used] / count[used],
        count=count[used].astype(np.int64),
    )


def calibration_error(predicted: Shares, observed: Shares, bins: int = BINS) -> float | None:
    """ECE: mean distance of mean prediction and mean outcome over 15 bins of equal width, weighted by their counts
    (Guo et al. 2017, eq. 3). None without predictions."""
    if len(predicted) == 0:
        return None
    found = reliability_bins(predicted, observed, bins)
    return float(found.count @ np.abs(found.predicted - found.observed) / len(predicted))
