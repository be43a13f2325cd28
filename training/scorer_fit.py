"""Choosing by predicted quality: how large a lead over the best single expert must be.

Everything is decided on predictions of queries that the scorer was not fitted on. Shapes: n queries, m experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router import plugins
from router.config import PluginConfig
from router.preference import reference_expert
from router.progress import Progress
from router.protocols import ArrayState
from router.quality import cautious_quality
from router.types import FloatArray, Metric
from training.graded_queries import GradedQueries
from training.scorer_folds import FAMILY, fit_arrays, out_of_fold, out_of_fold_by

Float64Array = NDArray[np.float64]

MARGINS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15, 1.0)
"""Leads that are tried; with the last one the best single expert always serves (ours)."""

MAX_SAMPLE = 4000
"""Predictions that are kept in an artifact to price budgets on."""

Z_95 = 1.959964


@dataclass(frozen=True)
class FittedScorer:
    """A scorer ready for an artifact: its kind, its arrays, those of the choice, and what validation said of it."""

    spec: PluginConfig
    arrays: ArrayState
    choice: ArrayState
    metrics: Mapping[str, Metric]


def chosen_scores(predicted: FloatArray, scores: FloatArray, margin: float) -> Float64Array:
    """(n,) score of the expert of best predicted quality that leads the reference by more than the margin.

    Unobserved scores (NaN) stay NaN.
    """
    reference = reference_expert(predicted, np.ones(predicted.shape[1], dtype=bool))
    worth = predicted.astype(np.float64)
    worth[:, reference] += margin
    return np.asarray(scores[np.arange(len(scores)), worth.argmax(axis=1)], dtype=np.float64)


def best_margin(predicted: FloatArray, scores: FloatArray) -> float:
    """The one of `MARGINS` with the highest mean score on queries that have every score; of equals the largest."""
    known = np.isfinite(scores).all(axis=1)
    if known.sum() < 2:
        return MARGINS[-1]
    values = {margin: chosen_scores(predicted, scores, margin)[known] for margin in MARGINS}
    return max(MARGINS, key=lambda margin: (values[margin].mean().round(9), margin))


def mean_metric(values: Float64Array) -> Metric:
    """Mean of what is known with its normal 95% interval."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return Metric(value=0.0, n=0)
    half = Z_95 * float(known.std()) / np.sqrt(len(known))
    mean = float(known.mean())
    return Metric.model_validate(
        {"value": mean, "interval": {"low": mean - half, "high": mean + half}, "n": len(known)}
    )


@dataclass(frozen=True)
class Bench:
    """The graded queries that scorers are fitted on."""

    data: GradedQueries
    rng: np.random.Generator
    progress: Progress


def fit_scorer(wanted: PluginConfig, bench: Bench | None) -> FittedScorer:
    """Fits the wanted kind of scorer; the map where there are no graded queries (`bench` is None).

    Raises:
        ConfigError: unknown kind or option.
    """
    if bench is None:
        return FittedScorer(PluginConfig(kind="map"), {}, {}, {})
    return fit_kind(wanted.kind, wanted.options, bench)


def fit_kind(kind: str, options: Mapping[str, object], bench: Bench) -> FittedScorer:
    """One kind with its margin, validated out of fold."""
    if kind == "map":
        values = mean_metric(map_values(bench.data))
        return FittedScorer(PluginConfig(kind="map"), {}, {}, {"validation.map": values})
    bench.progress(f"fitting scorer {kind}")
    arrays = fit_arrays(kind, options, bench.data, bench.rng)
    unseen = out_of_fold(kind, options, bench.data, bench.rng)
    settled = plugins.validate_options(FAMILY, kind, options).model_dump()  # defaults too, for a later version's differ
    scores = bench.data.judged
    margin = best_margin(unseen, scores)
    kept, rows = unseen, np.array(bench.data.decided, dtype=np.int64)
    if len(unseen) > MAX_SAMPLE:
        some = np.sort(bench.rng.choice(len(unseen), MAX_SAMPLE, replace=False))
        kept, rows = unseen[some], rows[some]
    return FittedScorer(
        spec=PluginConfig.model_validate({"kind": kind, **settled}),
        arrays=arrays,
        choice={"sample": kept, "rows": rows, "margin": np.array([margin], dtype=np.float32)},
        metrics={f"validation.{kind}": mean_metric(chosen_scores(unseen, scores, margin))},
    )


def map_values(data: GradedQueries) -> Float64Array:
    """(n,) score of the map's expert, measured and solved on the other folds, for the predicted category."""

    def cautious(rest: GradedQueries, part: GradedQueries) -> FloatArray:
        return cautious_quality(rest.evidence)[part.decided]

    return chosen_scores(out_of_fold_by(cautious, data), data.judged, 0.0)
