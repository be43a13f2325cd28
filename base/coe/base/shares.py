"""Statistics of shares: Wilson's interval, and the calibration of predictions by non-empty bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959964
"""97.5% quantile of the standard normal, for two-sided 95% intervals."""


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return the 95% score interval of a share of `n` independent draws (Wilson 1927); `n` may be an effective count.

    Raises:
        ValueError: n is not positive.
    """
    if not n > 0:
        raise ValueError(f"n is {n}; expected more than 0")
    z = Z_95
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


Shares = NDArray[np.floating]

BINS = 15
"""Number of bins, as in Guo et al. 2017 (arXiv 1706.04599)."""


@dataclass(frozen=True)
class ReliabilityBins:
    """Non-empty bins of equal width: mean prediction, mean outcome and count, each of shape (r,)."""

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    count: NDArray[np.int64]


def reliability_bins(predicted: Shares, observed: Shares, bins: int = BINS) -> ReliabilityBins:
    """Sort predictions into `bins` bins of equal width over [0, 1], the last one closed at 1.

    Args:
        predicted: probabilities in [0, 1], shape (n,).
        observed: outcomes, 0 or 1 or a score in [0, 1], shape (n,).

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
    """Return the expected calibration error (Guo et al. 2017, eq. 3); None without predictions.

    It is the mean distance between mean prediction and mean outcome over the bins, weighted by their counts.
    """
    if len(predicted) == 0:
        return None
    found = reliability_bins(predicted, observed, bins)
    return float(found.count @ np.abs(found.predicted - found.observed) / len(predicted))
