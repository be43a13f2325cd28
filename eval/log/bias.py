"""The bias of feedback: where satisfied users rate less often, the mean rating is not that of all answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from eval.log.rates import rate
from eval.log.traffic import Names, Traffic
from eval.log.traffic_records import Bias, RatedShare
from router.types import Float64Array

QUARTERS = ("fastest quarter", "second quarter", "third quarter", "slowest quarter")
By = Literal["category", "expert", "latency"]


def measure_bias(traffic: Traffic) -> Bias:
    """Shares of answers with feedback by group, and the mean reward as given and corrected."""
    answered = traffic.rows(traffic.is_answered & traffic.is_routed)
    is_rated = answered.is_rated.astype(np.float64)
    weights, coverage = response_weights(answered)
    return Bias(
        rated=rate(is_rated, clusters=answered.clusters),
        groups=tuple(shares(answered)),
        raw=rate(answered.reward, clusters=answered.clusters),
        corrected=rate(answered.reward, weights, answered.clusters),
        coverage=coverage,
    )


def shares(answered: Traffic) -> Iterator[RatedShare]:
    groups: tuple[tuple[By, Names], ...] = (
        ("expert", answered.expert),
        ("category", answered.category),
        ("latency", latency_quarters(answered.latency_ms)),
    )
    for by, names in groups:
        for name in QUARTERS if by == "latency" else sorted(set(names)):
            own = answered.rows(names == name)
            found = rate(own.is_rated.astype(np.float64), clusters=own.clusters)
            if found is not None:
                yield RatedShare(by=by, name=name, n=len(own), rated=found)


def latency_quarters(latency_ms: Float64Array) -> Names:
    """(n,) name of the quarter that each latency lies in."""
    if len(latency_ms) == 0:
        return np.array([], dtype=object)
    cuts = np.quantile(latency_ms, [0.25, 0.5, 0.75])
    return np.array(QUARTERS, dtype=object)[np.searchsorted(cuts, latency_ms, side="left")]


def response_weights(answered: Traffic) -> tuple[Float64Array, float]:
    """(n,) answers per rated answer of the same category and expert, and the share of answers in cells with feedback.

    Weighting by the inverse of the response rate removes the bias as far as whether people respond depends on category
    and expert alone (Rosenbaum & Rubin 1983; post-stratification).
    """
    cells = np.array([f"{c}\0{e}" for c, e in zip(answered.category, answered.expert, strict=True)], dtype=object)
    weights = np.ones(len(answered))
    covered = 0
    for cell in set(cells):
        own = cells == cell
        n_rated = int(answered.is_rated[own].sum())
        if n_rated:
            weights[own] = own.sum() / n_rated
            covered += int(own.sum())
    return weights, covered / max(len(answered), 1)
