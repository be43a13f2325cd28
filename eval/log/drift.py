"""Whether the router's promises still come true, and since when not."""

from __future__ import annotations

import numpy as np

from eval.log.rates import rate
from eval.log.rows import Float64Array, Traffic
from eval.log.schema import Alarm, Drift, Prequential
from router.adwin import Alarm as Detector

MIN_VALUES = 30
SURPRISE = "reward minus prediction, "


def measure_drift(traffic: Traffic) -> Drift:
    """Prequential accuracy, and ADWIN over what should stay level: rewards, errors of prediction, uncertainty.

    The order is that of the requests; feedback that came late counts where its answer was given.
    """
    routed = traffic.rows(traffic.is_routed)
    signals = signals_of(routed)
    alarms = [alarm for name, (at, values) in signals.items() for alarm in alarms_of(name, at, values)]
    return Drift(
        prequential=prequential(routed.reward, routed.predicted),
        signals={name: len(values) for name, (_, values) in signals.items()},
        alarms=tuple(sorted(alarms, key=lambda alarm: alarm.at)),
    )


def signals_of(routed: Traffic) -> dict[str, tuple[Float64Array, Float64Array]]:
    """Time and value of every signal with enough values.

    An expert is followed by how far its rewards lie from what was predicted: its plain rewards also move when another
    router gives it other queries.
    """
    signals = {
        "reward": routed.reward,
        "error of prediction": np.abs(routed.reward - routed.predicted),
        "uncertainty of the category": routed.uncertainty,
        "share of fallbacks": routed.is_fallback.astype(np.float64),
    }
    for expert in sorted(set(routed.expert)):
        surprise = routed.reward - routed.predicted
        signals[f"{SURPRISE}{expert}"] = np.where(routed.expert == expert, surprise, np.nan)
    known = {name: (routed.at[np.isfinite(v)], v[np.isfinite(v)]) for name, v in signals.items()}
    return {name: pair for name, pair in known.items() if len(pair[1]) >= MIN_VALUES}


def alarms_of(name: str, at: Float64Array, values: Float64Array) -> list[Alarm]:
    detector = Detector()
    # The bound is for values in [0, 1]; surprises lie in [-1, 1].
    scale, shift = (0.5, 0.5) if name.startswith(SURPRISE) else (1.0, 0.0)
    changes = [detector.update(scale * float(value) + shift) for value in values]
    return [
        Alarm(
            signal=name,
            at=float(at[change.index]),
            before=(change.before - shift) / scale,
            after=(change.after - shift) / scale,
        )
        for change in changes
        if change is not None
    ]


def prequential(reward: Float64Array, predicted: Float64Array) -> Prequential | None:
    """None without a rated answer whose quality was predicted."""
    known = np.isfinite(reward) & np.isfinite(predicted)
    if not known.any():
        return None
    reward, predicted = reward[known], predicted[known]
    accuracy = rate(((reward >= 0.5) == (predicted >= 0.5)).astype(np.float64))
    assert accuracy is not None  # there is at least one
    return Prequential(
        n=len(reward),
        accuracy=accuracy,
        error=float(np.abs(reward - predicted).mean()),
        bias=float((reward - predicted).mean()),
    )
