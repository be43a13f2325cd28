"""The fit of any kind of scorer, and of the margin over the best single expert that its choices need.

The margin is chosen on predictions of queries that the scorer was not fitted on. Shapes: n queries, m experts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from coe.base.shares import Z_95
from coe.cli.progress import Progress
from coe.router import plugins
from coe.router.policy.preference import reference_expert
from coe.router.protocols import ArrayState, ExpertScorer, ScorerOf
from coe.router.quality import Measured, cautious_quality
from coe.router.section import PluginConfig
from coe.router.types import Float64Array, FloatArray, Metric
from coe.training.graded_queries import GradedQueries

FAMILY = "router.scorers"

MARGINS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15, 1.0)
"""Margins of predicted quality to try (ours). With the last one the best single expert always serves."""

MAX_SAMPLE = 4000
"""Largest number of predictions stored in an artifact to price budgets on."""


@dataclass(frozen=True)
class FittedScorer:
    """A scorer ready for an artifact: its kind, its arrays, the arrays of the choice, and its validation metrics."""

    spec: PluginConfig
    arrays: ArrayState
    choice: ArrayState
    metrics: Mapping[str, Metric]


def fit_arrays(kind: str, options: Mapping[str, object], data: GradedQueries, rng: np.random.Generator) -> ArrayState:
    """Fit the arrays of a scorer by the `fit` of its module; none if it uses nothing but the evidence.

    Raises:
        ConfigError: the kind or an option is unknown.
    """
    checked = plugins.validate_options(FAMILY, kind, options)
    fit = getattr(plugins.load(FAMILY, kind), "fit", None)
    return {} if fit is None else cast(ArrayState, fit(checked, data, rng))


def build_scorer(kind: str, options: Mapping[str, object], data: GradedQueries, arrays: ArrayState) -> ExpertScorer:
    """Build the live scorer over all experts of the data."""
    filled, experts = cast(ScorerOf, plugins.build(FAMILY, kind, options)), data.table.experts
    return filled(Measured(experts, data.evidence), arrays, range(len(experts)))


def out_of_fold(kind: str, options: Mapping[str, object], data: GradedQueries, rng: np.random.Generator) -> FloatArray:
    """Predict the quality of each query by a scorer that was fitted on the other folds, of shape (n, m)."""

    def predict(rest: GradedQueries, part: GradedQueries) -> FloatArray:
        scorer = build_scorer(kind, options, rest, fit_arrays(kind, options, rest, rng))
        return scorer.score(part.batch, part.probs, part.decided).quality

    return out_of_fold_by(predict, data)


def out_of_fold_by(predict: Callable[[GradedQueries, GradedQueries], FloatArray], data: GradedQueries) -> FloatArray:
    """Predict every fold by `predict(rest, part)`, of shape (n, m)."""
    folds = data.folds
    predicted = np.empty(data.table.scores.shape, dtype=np.float32)
    for fold in np.unique(folds):
        predicted[folds == fold] = predict(data.take(folds != fold), data.take(folds == fold))
    return predicted


def chosen_scores(predicted: FloatArray, scores: FloatArray, margin: float) -> Float64Array:
    """Return the score (n,) of the expert of best predicted quality that exceeds the reference by over the margin.

    Unobserved scores (NaN) stay NaN.
    """
    reference = reference_expert(predicted, np.ones(predicted.shape[1], dtype=bool))
    worth = predicted.astype(np.float64)
    worth[:, reference] += margin
    return np.asarray(scores[np.arange(len(scores)), worth.argmax(axis=1)], dtype=np.float64)


def best_margin(predicted: FloatArray, scores: FloatArray) -> float:
    """Return the margin of `MARGINS` with the highest mean score on fully scored queries; of equals the largest."""
    known = np.isfinite(scores).all(axis=1)
    if known.sum() < 2:
        return MARGINS[-1]
    values = {margin: chosen_scores(predicted, scores, margin)[known] for margin in MARGINS}
    return max(MARGINS, key=lambda margin: (values[margin].mean().round(9), margin))


def mean_metric(values: Float64Array) -> Metric:
    """Return the mean of the known values with its normal 95% interval."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return Metric(value=0.0, n=0)
    half = Z_95 * float(known.std()) / math.sqrt(len(known))
    mean = float(known.mean())
    return Metric.within(mean - half, mean, mean + half, len(known))


def fit_scorer(wanted: PluginConfig, data: GradedQueries, rng: np.random.Generator, progress: Progress) -> FittedScorer:
    """Fit the wanted kind of scorer with its margin, and validate it out of fold.

    Raises:
        ConfigError: the kind or an option is unknown.
    """
    kind, options = wanted.kind, wanted.options
    if kind == "map":
        return FittedScorer(wanted, {}, {}, {"validation.map": mean_metric(map_values(data))})
    progress(f"fitting scorer {kind}")
    arrays = fit_arrays(kind, options, data, rng)
    unseen = out_of_fold(kind, options, data, rng)
    settled = plugins.validate_options(FAMILY, kind, options).model_dump()  # a later version may have other defaults
    scores = data.table.scores
    margin = best_margin(unseen, scores)
    kept, rows = unseen, np.array(data.decided, dtype=np.int64)
    if len(unseen) > MAX_SAMPLE:
        some = np.sort(rng.choice(len(unseen), MAX_SAMPLE, replace=False))
        kept, rows = unseen[some], rows[some]
    return FittedScorer(
        spec=PluginConfig.model_validate({"kind": kind, **settled}),
        arrays=arrays,
        choice={"sample": kept, "rows": rows, "margin": np.array([margin], dtype=np.float32)},
        metrics={f"validation.{kind}": mean_metric(chosen_scores(unseen, scores, margin))},
    )


def map_values(data: GradedQueries) -> Float64Array:
    """Return the score (n,) of the map's expert for the predicted category, by a map of the other folds."""

    def cautious(rest: GradedQueries, part: GradedQueries) -> FloatArray:
        return cautious_quality(rest.evidence)[part.decided]

    return chosen_scores(out_of_fold_by(cautious, data), data.table.scores, 0.0)
