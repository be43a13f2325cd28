"""The fit of a router artifact from labelled queries and outcomes.

Shapes: n labelled queries, d dimensions, k categories, m experts. A fifth of the queries (by hash of their text) is
never trained on. Its metrics are in the manifest, and a later candidate is compared with this router on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import DataError
from coe.cli.progress import Progress, silent
from coe.router.model_files.artifact import RouterArtifact, made_artifact, written
from coe.router.protocols import Encoder
from coe.router.reading.features import AskDetector, known_letters
from coe.router.section import PluginConfig
from coe.router.strategies.learned import PART as STRATEGIES
from coe.router.strategies.learned import Ways
from coe.router.types import CategoryProbs, FloatArray, IntArray, Metric
from coe.training.category_mix import MIX_MOVED
from coe.training.composites import detector_arrays, read_composites
from coe.training.graded_queries import GradedQueries
from coe.training.scorer_fit import FittedScorer, fit_scorer
from coe.training.stage_one import (
    FitRequest,
    LabelledEmbeddings,
    StageOne,
    embed,
    fit_stage_one,
    follow_traffic,
    label_numbers,
    new_categories_of,
    recognised_shares,
    served_shares,
    stage_one_metrics,
)
from coe.training.strategies.strategy_fit import fit_strategies
from coe.training.types import LabelledQuery, split_of

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

MAP_ALONE = FittedScorer(PluginConfig(kind="map"), {}, {}, {})
"""The empty scorer of a router that needs no fitted one."""


@cache
def controller() -> ThreadpoolController:
    """Return the controller of this process's BLAS libraries; finding them takes milliseconds, so it is done once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which BLAS uses one thread, because several wait for each other in small products. One
    text of the multilingual encoder takes 2.8 ms on one thread, 26 to 96 ms on two of two busy cores."""
    limited: AbstractContextManager[object] = controller().limit(limits=1, user_api="blas")
    return limited


def fit_router(
    root: Path,
    request: FitRequest,
    encoder: Encoder,
    queries: Sequence[LabelledQuery],
    *,
    now: datetime,
    rng: np.random.Generator,
    progress: Progress = silent,
) -> RouterArtifact:
    """Fit stage 1, join it with the evidence of stage 2 and write the artifact under `root`.

    Raises:
        DataError: there is no category to learn, or labels do not fit `request.categories`.
    """
    return written(root, fit_artifact(request, encoder, prepare(request, encoder, queries, rng, progress), now))


def fit_artifact(request: FitRequest, encoder: Encoder, prepared: Prepared, now: datetime) -> RouterArtifact:
    """Fit the scorer, and build the artifact, which is not stored yet."""
    if prepared.graded is None:
        return artifact_of(request, encoder, prepared, MAP_ALONE, now)
    with one_thread():
        scorer = fit_scorer(request.scorer, prepared.graded, prepared.rng, prepared.progress)
    return artifact_of(request, encoder, prepared, scorer, now)


@dataclass(frozen=True)
class Prepared:
    """Stage 1 with its figures, and the graded queries that scorers are fitted on, or None. `ways` to ask several
    experts are None if no answers are known. `served` (k+1,) is the share of the labelled queries that stage 1
    serves as each category, `general` last, at least one each."""

    stage: StageOne
    detector: AskDetector | None
    metrics: Mapping[str, Metric]
    served: FloatArray
    graded: GradedQueries | None
    ways: Ways | None
    letters: IntArray
    rng: np.random.Generator
    progress: Progress


def prepare(
    request: FitRequest,
    encoder: Encoder,
    queries: Sequence[LabelledQuery],
    rng: np.random.Generator,
    progress: Progress,
) -> Prepared:
    """Fit stage 1, and collect what stage 2 learns from; raise DataError as `fit_router` does."""
    if not request.categories:
        raise DataError("a router needs at least one category that is not `general`; got none")
    data = LabelledEmbeddings(
        embed(encoder, [query.text for query in queries], progress), label_numbers(queries, request.categories)
    )
    held_out = np.array([request.is_holding_out and split_of(query.text) == "test" for query in queries], dtype=bool)
    held_out &= ~np.append(new_categories_of(request, data.labels), False)[data.labels]  # a few examples are all needed
    learned = [query.text for query, is_out in zip(queries, held_out, strict=True) if not is_out]
    number = {name: i for i, name in enumerate(request.categories)}
    about = LabelledEmbeddings(
        embed(encoder, [query.text for query in request.about_material], progress),
        np.array([number[query.category] for query in request.about_material], dtype=np.int64),
    )
    progress("telling asks from material")
    with one_thread():
        taught, texts = data.take(~held_out), [query.text for query in request.about_material]
        detector, made = read_composites(
            encoder.encode, [*learned, *texts], taught.joined(about).embeddings, rng, len(texts)
        )
    progress("fitting the category classifier")
    with one_thread():
        stage = fit_stage_one(taught, request, rng, made, about)
        metrics = stage_one_metrics(stage, data.take(held_out), request.alpha)  # as labelled, not as asked
        metrics |= recognised_shares(stage, data.take(~held_out), request)
        stage = follow_traffic(stage, data.take(~held_out), request, rng)
        scored = graded_queries(request, encoder, stage, dict(zip(learned, stage.unseen, strict=True)), progress)
        ways = None if scored is None else fit_strategies(scored, request.evidence, progress)
    served = served_shares(stage, data.embeddings[~held_out], request.alpha)
    letters = known_letters(query.text for query in queries)
    return Prepared(stage, detector, metrics, served, scored, ways, letters, rng, progress)


def graded_queries(
    request: FitRequest, encoder: Encoder, stage: StageOne, unseen: Mapping[str, FloatArray], progress: Progress
) -> GradedQueries | None:
    """Return graded queries with stage 1's probabilities; `unseen` (k,) are those of texts it was fitted on, out of
    fold. Return None if nothing is fitted on them: the scorer is a map, and no known answers teach strategies."""
    if request.outcomes is None or (request.scorer.kind == "map" and request.outcomes.answers is None):
        return None
    table = request.outcomes.rows(np.array([bool(text) for text in request.outcomes.texts], dtype=bool))
    embeddings = embed(encoder, table.texts, progress)
    probs = stage.probs(embeddings)
    for i, text in enumerate(table.texts):
        if text in unseen:
            probs[i] = unseen[text]
    return GradedQueries(table, embeddings, CategoryProbs(request.categories, probs))


def without_secrets(value: object) -> object:
    """Return a plugin's options, at any depth, without keys: a manifest is copied and shown."""
    if isinstance(value, Mapping):
        return {name: without_secrets(part) for name, part in value.items() if name != "api_key"}
    return [without_secrets(part) for part in value] if isinstance(value, list | tuple) else value


def artifact_of(
    request: FitRequest, encoder: Encoder, prepared: Prepared, scorer: FittedScorer, now: datetime
) -> RouterArtifact:
    """Build an artifact of stage 1, the evidence and the scorer."""
    stage, metrics = prepared.stage, {**prepared.metrics, **scorer.metrics}
    if stage.mix is not None:
        metrics[MIX_MOVED] = stage.mix.moved
    evidence = replace(request.evidence, mass=prepared.served) if request.is_traffic else request.evidence
    parts: dict[str, Mapping[str, NDArray[np.generic]]] = {
        "asks": detector_arrays(prepared.detector),
        "letters": {"known": prepared.letters},
        "classifier": stage.state,
        "part_classifier": stage.part_state,
        "uncertainty": stage.uncertainty,
        "map": evidence.arrays(),
        "scorer": scorer.arrays,
        "choice": scorer.choice,
        STRATEGIES: {} if prepared.ways is None else prepared.ways.arrays(),
        "mix": {} if stage.mix is None or stage.mix.ratio is None else {"ratio": stage.mix.ratio},
    }
    arrays = {f"{part}.{name}": array for part, state in parts.items() for name, array in state.items()}
    manifest = {
        "created_at": now.isoformat(),
        "parents": request.parents,
        "encoder": {
            "kind": request.encoder_config.kind,
            "options": without_secrets(request.encoder_config.options),
            "fingerprint": encoder.fingerprint,
            "dim": encoder.dim,
        },
        "classifier": {"kind": request.classifier.kind, "options": request.classifier.options},
        "scorer": {"kind": scorer.spec.kind, "options": scorer.spec.options},
        "categories": request.categories,
        "experts": request.experts,
        "temperature": stage.temperature,
        "data_fingerprints": dict(request.data_fingerprints),
        "metrics": {name: metric.model_dump() for name, metric in metrics.items()},
    }
    return made_artifact(manifest, arrays)
