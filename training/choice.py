"""Choosing by predicted quality: how large a lead must be, and which kind of scorer is the default.

Everything is decided on predictions of queries that the scorer was not fitted on. Shapes: n queries, m experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from router import plugins
from router.config import AUTO, PluginConfig
from router.preference import reference_expert
from router.protocols import ArrayState
from router.quality import cautious_quality
from router.scorers.stack import Options as StackOptions
from router.types import FloatArray, Metric
from training.progress import Progress
from training.scored import ScoredQueries
from training.scoring import FAMILY, fit_arrays, out_of_fold, out_of_fold_by

Float64Array = NDArray[np.float64]

MARGINS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15, 1.0)
"""Leads that are tried; with the last one the best single expert always serves (ours)."""

MAX_SAMPLE = 4000
"""Predictions that are kept in an artifact to price budgets on."""

MIN_AUTO_QUERIES = 60
"""With fewer graded queries the map is the default. From 66 on the stack chooses as well as it does, and tells better
which query is worth a strong expert: with so few, stage 1 is unsure of most, and to the map they are all alike
(training/LOG.md)."""

AUTO_KIND = "stack"
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
    """Fits kinds of scorers on the same queries, each once: a stack takes its parts from here.

    `arrays` and `unseen` by kind: learned arrays, and predictions (n, m) out of fold.
    """

    data: ScoredQueries
    rng: np.random.Generator
    progress: Progress
    arrays: dict[str, ArrayState] = field(default_factory=dict)
    unseen: dict[str, FloatArray] = field(default_factory=dict)

    def fit(self, kind: str, options: Mapping[str, object]) -> tuple[ArrayState, FloatArray]:
        """Arrays and predictions of one kind. Raises ConfigError."""
        if kind == "stack":
            return self.fit_stack(options)
        if options or kind not in self.arrays:
            self.progress(f"fitting scorer {kind}")
            arrays = fit_arrays(kind, options, self.data, self.rng)
            unseen = out_of_fold(kind, options, self.data, self.rng)
            if options:
                return arrays, unseen
            self.arrays[kind], self.unseen[kind] = arrays, unseen
        return self.arrays[kind], self.unseen[kind]

    def fit_stack(self, options: Mapping[str, object]) -> tuple[ArrayState, FloatArray]:
        checked = plugins.validate_options(FAMILY, "stack", options)
        assert isinstance(checked, StackOptions)
        parts = {kind: self.fit(kind, {}) for kind in checked.kinds}
        arrays = {f"{kind}.{name}": array for kind, (own, _) in parts.items() for name, array in own.items()}
        return arrays, checked.mean([unseen for _, unseen in parts.values()])


def fit_scorer(wanted: PluginConfig, bench: Bench | None) -> FittedScorer:
    """Fits the wanted kind of scorer, or the default where `auto` is wanted.

    The default is the stack when validation does not prefer the map, and the map when there is little to validate on.

    Raises:
        ConfigError: unknown kind or option.
    """
    is_small = bench is not None and wanted.kind == AUTO and count_judged(bench.data) < MIN_AUTO_QUERIES
    if wanted.kind == "map" or bench is None or is_small:
        return FittedScorer(PluginConfig(kind="map"), {}, {}, {})
    if wanted.kind != AUTO:
        return fit_kind(wanted.kind, wanted.options, bench)
    stack = fit_kind(AUTO_KIND, {}, bench)
    on_map = mean_metric(map_values(bench.data))
    metrics = {**stack.metrics, "validation.map": on_map}
    if on_map.value > stack.metrics[f"validation.{AUTO_KIND}"].value:
        return FittedScorer(PluginConfig(kind="map"), {}, {}, metrics)
    return FittedScorer(stack.spec, stack.arrays, stack.choice, metrics)


def fit_kind(kind: str, options: Mapping[str, object], bench: Bench) -> FittedScorer:
    """One kind with its margin, validated out of fold."""
    if kind == "map":
        values = mean_metric(map_values(bench.data))
        return FittedScorer(PluginConfig(kind="map"), {}, {}, {"validation.map": values})
    arrays, unseen = bench.fit(kind, options)
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


def count_judged(data: ScoredQueries) -> int:
    """Queries on which every choice can be judged."""
    return int(np.isfinite(data.judged).all(axis=1).sum())


def map_values(data: ScoredQueries) -> Float64Array:
    """(n,) score of the map's expert, measured and solved on the other folds, for the predicted category."""

    def cautious(rest: ScoredQueries, part: ScoredQueries) -> FloatArray:
        return cautious_quality(rest.evidence)[part.decided]

    return chosen_scores(out_of_fold_by(cautious, data), data.judged, 0.0)
