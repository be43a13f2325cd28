"""Every kind of scorer that `coe train --table --methods` fitted, on the test queries."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from base.errors import ArtifactError
from base.json_text import from_json
from eval.routing.trial import MethodOutput, Trial
from router.artifact import RouterArtifact
from router.build import sample_rows
from router.pipeline import Router
from router.types import CategoryProbs, QueryBatch

METHODS_FILE = "methods.json"
TIMED_QUERIES = 50


def read_methods(routers: Path) -> dict[str, tuple[Path, float]]:
    """Folder and seconds of fitting by kind. Raises ArtifactError."""
    path = routers / METHODS_FILE
    try:
        rows = from_json(path.read_bytes())
        return {str(kind): (routers / str(row["version"]), float(row["fit_s"])) for kind, row in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: is not a list of fitted methods") from error


def method_output(
    artifact: RouterArtifact, router: Router, fit_s: float, trial: Trial, default_kind: str
) -> MethodOutput:
    """Predictions and choices of a kind that took `fit_s` seconds to fit, under the trial's budgets."""
    kind, batch = artifact.manifest.scorer.kind, QueryBatch.of(trial.test.texts, trial.test_embeddings)
    probs = router.predict_categories(batch.embeddings)
    rows = [int(row) for row in router.judge(batch.embeddings, probs).rows]
    quality = router.scorer.score(batch, probs, rows).quality
    decisions = router.decide_batch(batch, rng=np.random.default_rng(0))
    sample = artifact.arrays.get("choice.sample")
    order = [router.experts.index(name) for name in trial.test.experts]
    validated = artifact.manifest.metrics.get(f"validation.{kind}")
    return MethodOutput(
        name=kind,
        label=words_of(kind)[0],
        how=words_of(kind)[1],
        quality=quality[:, order].astype(np.float64),
        chosen=trial.numbers([decision.expert for decision in decisions]),
        sample_quality=None if sample is None else np.asarray(sample, dtype=np.float64)[:, order],
        sample_rows=None if sample is None else sample_rows(artifact),
        fit_s=fit_s,
        decide_us=time_of_score(router, batch, probs, rows),
        valid_score=None if validated is None else validated.value,
        is_default=kind == default_kind,
    )


def words_of(kind: str) -> tuple[str, str]:
    """A kind of scorer for readers: its name, and how it chooses."""
    module = importlib.import_module(f"router.scorers.{kind}")
    return str(module.LABEL), str(module.HOW)


def time_of_score(router: Router, batch: QueryBatch, probs: CategoryProbs, rows: Sequence[int]) -> float:
    """Median microseconds of scoring one query, its embedding and category probabilities given."""
    taken = []
    for i in range(min(TIMED_QUERIES, len(batch.queries))):
        one = QueryBatch(batch.queries[i : i + 1], batch.embeddings[i : i + 1])
        own = CategoryProbs(probs.categories, probs.probs[i : i + 1])
        start = time.perf_counter()
        router.scorer.score(one, own, rows[i : i + 1])
        taken.append(time.perf_counter() - start)
    return 1e6 * float(np.median(taken))
