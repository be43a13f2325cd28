"""What every expert scorer must do, run on every example of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from router import plugins
from router.protocols import ExpertScorer
from router.quality import QualityMatrix
from router.types import CategoryProbs, Query, QueryBatch

FAMILY = "router.scorers"
EXPERTS = ("a", "b")
CASES = [
    pytest.param(kind, number, id=f"{kind}-{number}")
    for kind in plugins.kinds(FAMILY)
    for number in range(len(plugins.load(FAMILY, kind).examples))
]


def filled(kind: str, number: int) -> ExpertScorer:
    plugin = plugins.load(FAMILY, kind)
    quality = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.4]], np.float32)
    flat, row = np.full((3, 2), 0.05, np.float32), np.ones(3, np.float32)
    scorer: ExpertScorer = plugin.build(plugin.examples[number])
    return scorer.with_evidence(EXPERTS, QualityMatrix(quality, flat, flat, row, row, flat, flat))


def batch(n: int) -> tuple[QueryBatch, CategoryProbs, list[int]]:
    rng = np.random.default_rng(0)
    likely = np.arange(n) % 2
    probs = np.where(np.arange(2) == likely[:, None], 0.95, 0.05).astype(np.float32)
    queries = tuple(Query(str(i), "t") for i in range(n))
    vectors = rng.standard_normal((n, 4)).astype(np.float32)
    return QueryBatch(queries, vectors), CategoryProbs(("code", "facts"), probs), likely.tolist()


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_scores_have_their_shape_and_prefer_the_categorys_expert(kind: str, number: int) -> None:
    queries, probs, rows = batch(6)
    found = filled(kind, number).score(queries, probs, rows)
    assert found.experts == EXPERTS
    assert found.quality.shape == found.stderr.shape == (6, 2)
    assert found.quality.argmax(axis=1).tolist() == rows
    assert ((found.quality >= 0) & (found.quality <= 1)).all()


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_batch_equals_one_by_one(kind: str, number: int) -> None:
    queries, probs, rows = batch(5)
    scorer = filled(kind, number)
    together = scorer.score(queries, probs, rows).quality
    for i in range(5):
        alone = scorer.score(
            QueryBatch(queries.queries[i : i + 1], queries.embeddings[i : i + 1]),
            CategoryProbs(probs.categories, probs.probs[i : i + 1]),
            rows[i : i + 1],
        ).quality
        np.testing.assert_allclose(alone[0], together[i], atol=1e-6)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_without_evidence_there_is_no_score(kind: str, number: int) -> None:
    plugin = plugins.load(FAMILY, kind)
    with pytest.raises(ValueError, match="needs evidence"):
        plugin.build(plugin.examples[number]).score(*batch(1))
