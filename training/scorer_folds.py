"""Fits any kind of scorer, and predicts queries that it was not fitted on. Shapes: n queries, m experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import cast

import numpy as np

from router import plugins
from router.protocols import ArrayState, ExpertScorer
from router.types import FloatArray
from training.graded_queries import GradedQueries

FAMILY = "router.scorers"
WITHOUT_ARRAYS = frozenset({"map", "soft_map"})
"""Kinds that know nothing but the evidence."""


def fit_arrays(kind: str, options: Mapping[str, object], data: GradedQueries, rng: np.random.Generator) -> ArrayState:
    """The learned arrays of a scorer; none for the maps. Raises ConfigError on an unknown kind or option."""
    checked = plugins.validate_options(FAMILY, kind, options)
    if kind in WITHOUT_ARRAYS:
        return {}
    return cast(ArrayState, import_module(f"training.scorers.{kind}").fit(checked, data, rng))


def fitted(kind: str, options: Mapping[str, object], data: GradedQueries, arrays: ArrayState) -> ExpertScorer:
    """The live scorer over all experts of the data."""
    empty = cast(ExpertScorer, plugins.build(FAMILY, kind, options))
    m = len(data.table.experts)
    return empty.with_evidence(data.table.experts, data.evidence).with_state(arrays, range(m))


def out_of_fold(kind: str, options: Mapping[str, object], data: GradedQueries, rng: np.random.Generator) -> FloatArray:
    """Predicted quality (n, m) of each query by a scorer that was fitted on the other folds."""

    def predict(rest: GradedQueries, part: GradedQueries) -> FloatArray:
        scorer = fitted(kind, options, rest, fit_arrays(kind, options, rest, rng))
        return scorer.score(part.batch, part.probs, part.decided).quality

    return out_of_fold_by(predict, data)


def out_of_fold_by(predict: Callable[[GradedQueries, GradedQueries], FloatArray], data: GradedQueries) -> FloatArray:
    """(n, m) from `predict(rest, part)` for every fold."""
    folds = data.folds
    predicted = np.empty(data.table.scores.shape, dtype=np.float32)
    for fold in np.unique(folds):
        predicted[folds == fold] = predict(data.take(folds != fold), data.take(folds == fold))
    return predicted
