"""Rules for asking on: optimal stopping by regression (Longstaff & Schwartz 2001). Shapes: n prompts, l replies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from router.strategies.votes import SIGNALS
from router.types import Float64Array
from training.strategies.rehearsal import Stage

RIDGE = 3e-3
"""Strength of the penalty, as a share of the prompts (ours: 0.001 to 0.03 do not differ)."""


def regressed(signals: Float64Array, gain: Float64Array) -> Float64Array:
    """(s,) coefficients of what asking on gains (n,), by ridge regression on standardised signals."""
    if not len(signals):
        return np.zeros(signals.shape[1])
    mean, spread = signals.mean(axis=0), signals.std(axis=0) + 1e-9
    mean[0], spread[0] = 0.0, 1.0
    scaled = (signals - mean) / spread
    held = RIDGE * len(signals) * np.diag([0.0, *[1.0] * (signals.shape[1] - 1)]) + 1e-9 * np.eye(signals.shape[1])
    found = np.linalg.solve(scaled.T @ scaled + held, scaled.T @ gain) / spread
    found[0] -= found[1:] @ mean[1:]
    return np.asarray(found)


def stopping_rules(found: Sequence[Stage], costs: Float64Array, price: float) -> Float64Array:
    """(l - 1, SIGNALS) backwards from the last reply: what the rules after it lead to, less what it costs and less what
    would be served without it, regressed on what is known before it. `costs` (n, l) of the replies in order."""
    later = found[-1].score
    rules = np.zeros((len(found) - 1, SIGNALS))
    for i in range(len(rules) - 1, -1, -1):
        worth = later - price * costs[:, i + 1]
        is_open = ~found[i].is_decided
        rules[i] = regressed(found[i].signals[is_open], (worth - found[i].score)[is_open])
        later = np.where(found[i].goes_on(rules[i]), worth, found[i].score)
    return rules
