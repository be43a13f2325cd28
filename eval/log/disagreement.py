"""Disagreement between experts that a strategy asked, as a sign of wrong answers."""

from __future__ import annotations

import math

import numpy as np

from eval.log.traffic import Traffic
from eval.log.traffic_records import Disagreement, Gap
from router.types import BoolArray, Float64Array

Z_95 = 1.959964
IS_WRONG = 0.5
"""Rewards below it are those of wrong answers."""


def measure_disagreement(traffic: Traffic) -> Disagreement | None:
    """None where no answer was compared with another."""
    asked = traffic.rows(np.isfinite(traffic.disagreement))
    if not len(asked):
        return None
    rated = asked.rows(asked.is_rated)
    return Disagreement(
        n=len(asked),
        n_rated=len(rated),
        mean=float(asked.disagreement.mean()),
        auroc=auroc(rated.disagreement, rated.reward < IS_WRONG),
    )


def auroc(sign: Float64Array, is_wrong: BoolArray) -> Gap | None:
    """The probability that a wrong answer has more of a sign (n,) than a right one, equal ones counted half, with the
    95% interval of Hanley & McNeil (1982); None without one of each."""
    wrong, right = sign[is_wrong], sign[~is_wrong]
    if not len(wrong) or not len(right):
        return None
    ordered = np.sort(right)
    below, up_to = np.searchsorted(ordered, wrong, "left"), np.searchsorted(ordered, wrong, "right")
    area = float((below + up_to).mean() / (2 * len(right)))
    if_two_wrong, if_two_right = area / (2 - area), 2 * area**2 / (1 + area)
    spread = (len(wrong) - 1) * (if_two_wrong - area**2) + (len(right) - 1) * (if_two_right - area**2)
    half = Z_95 * math.sqrt(max(area * (1 - area) + spread, 0.0) / (len(wrong) * len(right)))
    return Gap(value=area, low=max(area - half, 0.0), high=min(area + half, 1.0))
