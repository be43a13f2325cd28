"""What a candidate router would have earned on the log of another. Pure.

Shapes: n logged answers, m experts. `match` (n,) is the candidate's probability of the logged expert, `propensity` (n,)
the logged router's, `reward` (n,) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from router.types import Interval, Metric

Float64Array = NDArray[np.float64]
MAX_WEIGHT = 50.0
"""Importance weights are clipped here: a little bias for bounded variance (Bottou et al. 2013)."""


def importance_weights(match: Float64Array, propensity: Float64Array) -> Float64Array:
    """w_i = pi(a_i | x_i) / mu(a_i | x_i), clipped."""
    return np.minimum(match / propensity, MAX_WEIGHT)


def effective_sample_size(weights: Float64Array) -> float:
    """(sum w)^2 / sum w^2 (Kish 1965); 0 when no logged action agrees with the candidate."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def ips(weights: Float64Array, reward: Float64Array) -> float:
    """Inverse propensity score: mean of w r (Horvitz & Thompson 1952)."""
    return float((weights * reward).mean())


def snips(weights: Float64Array, reward: Float64Array) -> float:
    """Self-normalised IPS: sum w r / sum w (Swaminathan & Joachims 2015); NaN when all weights are 0."""
    total = float(weights.sum())
    return float((weights * reward).sum()) / total if total > 0 else float("nan")


def doubly_robust_terms(
    weights: Float64Array, reward: Float64Array, model_of_logged: Float64Array, model_of_candidate: Float64Array
) -> Float64Array:
    """Per-row doubly robust values (n,): q(x, pi) + w (r - q(x, a)); their mean is the estimate (Dudik et al. 2011).

    Args:
        model_of_logged: q(x_i, a_i), predicted reward of the logged expert.
        model_of_candidate: sum_e pi(e | x_i) q(x_i, e), predicted reward of the candidate's choice.
    """
    return model_of_candidate + weights * (reward - model_of_logged)


def off_policy_values(
    weights: Sequence[Float64Array], terms: Sequence[Float64Array], reward: Float64Array, share: Float64Array
) -> Float64Array:
    """(9,) values of the live router, the candidate and their difference by DR, then SNIPS, then IPS.

    Args:
        weights: importance weights (n,) of both routers.
        terms: doubly robust terms (n,) of both.
        share: (n,) how many queries of the traffic a row stands for; with equal shares these are the plain estimates.
    """
    total = max(float(share.sum()), 1e-300)
    doubly_robust = [float(share @ own) / total for own in terms]
    by_weight = [snips(share * own, reward) for own in weights]
    by_propensity = [float((share * own) @ reward) / total for own in weights]
    return np.array(
        [v for live, own in (doubly_robust, by_weight, by_propensity) for v in (live, own, own - live)],
        dtype=np.float64,
    )


def bootstrap_metric(
    n: int, statistic: Callable[[NDArray[np.int64]], float], rng: np.random.Generator, *, rounds: int = 1000
) -> Metric:
    """A statistic of rows with its 95% percentile bootstrap interval (Efron 1979).

    Args:
        statistic: value for an array of row numbers; rounds whose value is NaN are left out.
    """

    def alone(rows: NDArray[np.int64]) -> Float64Array:
        return np.array([statistic(rows)])

    return bootstrap_metrics(n, alone, rng, rounds=rounds)[0]


def bootstrap_metrics(
    n: int, statistics: Callable[[NDArray[np.int64]], Float64Array], rng: np.random.Generator, *, rounds: int = 1000
) -> list[Metric]:
    """Several statistics (s,) of the same resampled rows, each with its 95% percentile interval; paired, so an interval
    of a difference is that of the difference."""
    values = statistics(np.arange(n))
    draws = np.stack([statistics(rng.integers(0, n, n)) for _ in range(rounds)])
    return [with_interval(float(value), draws[:, i], n) for i, value in enumerate(values)]


def with_interval(value: float, draws: Float64Array, n: int) -> Metric:
    """A value with the 2.5 and 97.5 percentiles of what of its bootstrap draws is finite."""
    draws = draws[np.isfinite(draws)]
    if len(draws) == 0:
        return Metric(value=value, n=n)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Metric(value=value, interval=Interval(low=float(low), high=float(high)), n=n)
