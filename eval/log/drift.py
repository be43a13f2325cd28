"""Drift: predictions that no longer come true, and since when."""

from __future__ import annotations

import numpy as np

from decision_log.drift import USEFUL, DriftMonitor
from eval.log.rates import rate
from eval.log.traffic import Traffic
from eval.log.traffic_records import Alarm, Drift, Prequential

MIN_VALUES = 30
"""Signals with fewer values are not listed: ADWIN looks at every 32nd."""


def measure_drift(traffic: Traffic) -> Drift:
    """Prequential accuracy, and every alarm over the routed traffic.

    The order is that of the requests; late feedback counts at the time of its answer.
    """
    routed = traffic.rows(traffic.is_routed)
    monitor, alarms = DriftMonitor(), []
    columns = (routed.at, routed.expert, routed.uncertainty, routed.is_fallback, routed.reward, routed.predicted)
    for at, expert, uncertainty, is_fallback, reward, predicted in zip(*columns, strict=True):
        changes = monitor.decided(float(uncertainty), is_fallback=bool(is_fallback))
        if np.isfinite(reward):
            changes += monitor.rated(expert, float(reward), float(predicted) if np.isfinite(predicted) else None)
        alarms += [Alarm(signal=c.signal, at=float(at), before=c.before, after=c.after) for c in changes]
    return Drift(
        prequential=prequential(routed),
        signals={name: count for name, count in monitor.counts.items() if count >= MIN_VALUES},
        alarms=tuple(alarms),
    )


def prequential(routed: Traffic) -> Prequential | None:
    """Predictions compared with rewards; None without a rated answer whose quality was predicted."""
    known = routed.rows(np.isfinite(routed.reward) & np.isfinite(routed.predicted))
    reward, predicted = known.reward, known.predicted
    accuracy = rate(((reward >= USEFUL) == (predicted >= USEFUL)).astype(np.float64), clusters=known.clusters)
    if accuracy is None:
        return None
    return Prequential(
        n=len(reward),
        accuracy=accuracy,
        error=float(np.abs(reward - predicted).mean()),
        bias=float((reward - predicted).mean()),
    )
