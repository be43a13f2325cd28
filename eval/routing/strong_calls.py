"""Two experts: how well each method spends strong calls."""

from __future__ import annotations

import numpy as np

from eval.metrics.cheap_strong import CallFigures, call_figures, thinned
from eval.routing.routing_records import CallOrder, CheapStrong
from eval.routing.trial import Trial
from router.types import Float64Array


def build_cheap_strong(trial: Trial, rng: np.random.Generator) -> CheapStrong | None:
    """The record of two experts; None unless there are exactly two. The weak one is the one of lower mean score on the
    fit queries."""
    if len(trial.test.experts) != 2:
        return None
    weak, strong = np.argsort(trial.fit_means, kind="stable").tolist()
    low, high = trial.scores[:, weak], trial.scores[:, strong]
    orders: dict[str, Float64Array] = {
        method.name: method.quality[:, strong] - method.quality[:, weak] for method in trial.methods
    }
    orders |= {"random": np.zeros(len(low)), "oracle": high - low}
    return CheapStrong(
        weak=trial.test.experts[weak],
        strong=trial.test.experts[strong],
        weak_score=float(low.mean()),
        strong_score=float(high.mean()),
        oracle_score=float(np.maximum(low, high).mean()),
        orders={name: call_order(call_figures(gain, low, high, rng)) for name, gain in orders.items()},
    )


def call_order(figures: CallFigures) -> CallOrder:
    """The record of one order, its curve at 101 shares."""
    curve = thinned(figures.curve)
    return CallOrder(
        apgr=figures.apgr,
        apgr_interval=figures.apgr_interval,
        cpt=figures.cpt,
        cpt_interval=figures.cpt_interval,
        share=tuple(curve.share.tolist()),
        mean_score=tuple(curve.quality.tolist()),
    )
