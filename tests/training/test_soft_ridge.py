"""The soft map with a linear correction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from router.scorers.soft_map import expected_quality
from router.scorers.soft_ridge import Options, sharpened_quality
from tests.contracts.test_scorers import graded
from training.graded_queries import GradedQueries
from training.scorer_fit import fitted
from training.scorers.soft_ridge import fit


def test_probabilities_are_raised_to_a_power_and_sum_to_one_again() -> None:
    evidence = graded(40, 0).evidence
    probs = np.array([[0.8, 0.2], [1.0, 0.0]], dtype=np.float32)
    squared = np.array([[0.64 / 0.68, 0.04 / 0.68], [1.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(sharpened_quality(probs, evidence, 2.0), squared @ evidence.quality[:2], atol=1e-6)
    np.testing.assert_allclose(sharpened_quality(probs, evidence, 1.0), expected_quality(probs, evidence), atol=1e-6)
    np.testing.assert_allclose(sharpened_quality(probs, evidence, 400.0)[0], evidence.quality[0], atol=1e-6)


def scored_by(data: GradedQueries, scores: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> GradedQueries:
    return replace(data, table=replace(data.table, scores=scores))


def test_where_the_categories_tell_all_next_to_nothing_is_corrected() -> None:
    """The correctness of an expert depends on the category and luck alone."""
    data, rng = graded(400, 0), np.random.default_rng(1)
    chance = np.where(data.rows[:, None] == np.arange(3), 0.8, 0.3)
    lucky = scored_by(data, (rng.random((400, 3)) < chance).astype(np.float32))
    unrelated = replace(lucky, embeddings=rng.standard_normal((400, 8)).astype(np.float32))
    chosen, forced = (fit(options, unrelated, rng)["weights"] for options in (Options(), Options(l2=1.0)))
    assert (unrelated.embeddings @ chosen).std() < 0.02
    assert (unrelated.embeddings @ forced).std() > 0.05


def test_what_the_embedding_tells_within_a_category_is_learned() -> None:
    data, rng = graded(400, 0), np.random.default_rng(1)
    is_far = data.embeddings[:, 5] > 0
    scores = np.stack([is_far, ~is_far, np.zeros(400)], axis=1).astype(np.float32)
    found = scored_by(data, scores)
    scorer = fitted("soft_ridge", {}, found, fit(Options(), found, rng))
    quality = scorer.score(found.batch, found.probs, found.decided).quality
    assert (quality.argmax(axis=1) == np.where(is_far, 0, 1)).mean() > 0.95
