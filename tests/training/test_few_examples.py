"""Categories of a few examples: how much they count, and which logged queries they grow by."""

from __future__ import annotations

import numpy as np

from coe.router.reading.uncertainty import normalised_entropy, risk_threshold
from coe.router.types import FloatArray
from coe.training.calibrate import (
    FEW_EXAMPLES,
    MAX_EXAMPLES_PER_KEY,
    augment_new_categories,
    is_new,
    select_new_examples,
    with_ood_queries,
)
from coe.training.category_mix import AskedQueries
from coe.training.stage_one import LabelledEmbeddings, fit_stage_one, label_counts, new_categories_of
from tests.training.test_fit import request


def test_a_category_is_new_if_it_is_small_by_itself_and_beside_the_others() -> None:
    assert is_new(np.repeat([0, 1, 2], [40, 60, 5]), 4).tolist() == [False, False, True, False]
    assert not is_new(np.repeat([0, 1], [FEW_EXAMPLES, 500]), 2).any()
    assert not is_new(np.repeat([0, 1], [4, 4]), 2).any()


def test_a_new_category_is_spread_as_others_are_about_its_own_queries() -> None:
    rng = np.random.default_rng(0)
    known = clouds([200, 200, 5], rng)
    rows, labels = augment_new_categories(known.embeddings, known.labels, np.array([False, False, True]), rng)
    assert labels.tolist() == [2] * 195
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[:, 2].mean() > 3 * abs(rows[:, :2]).mean(axis=0).max() / 2
    own = known.embeddings[known.labels == 2]
    assert rows.std(axis=0)[3:].mean() > own.std(axis=0)[3:].mean()
    nothing, _ = augment_new_categories(
        known.embeddings[:400], known.labels[:400], np.array([False, False, False]), rng
    )
    assert nothing.shape == (0, 8)


def test_a_new_category_makes_doubt_strict_by_the_queries_that_it_lacks() -> None:
    """Whoever knows two of three categories well is as sure of the third one's queries, and wrong about all of them."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [80, 80, 4, 6])  # the last are of no category
    unseen = np.array([[0.9, 0.06, 0.04], [0.01, 0.9, 0.09], [0.5, 0.4, 0.1], [0.4, 0.3, 0.3]], np.float32)[labels]
    before = {
        "held_out_scores": normalised_entropy(unseen) + rng.normal(0, 0.01, 170).astype(np.float32),
        "held_out_correct": (unseen.argmax(axis=1) == labels).astype(np.uint8),
        "weight": np.ones(1, np.float32),
    }
    new = np.array([False, False, True])
    assert len(with_ood_queries(before, known_half(unseen), labels, new)["held_out_scores"]) == 170 + 38
    found = with_ood_queries(before, unseen, labels, new)
    assert len(found["held_out_scores"]) == 170 + 76
    np.testing.assert_array_equal(found["held_out_scores"][:170], before["held_out_scores"])
    assert not found["held_out_correct"][170:].any()
    likely = normalised_entropy(np.array([[0.0, 0.6, 0.4], [0.1, 0.0, 0.9]], np.float32))
    added = found["held_out_scores"][170:]
    assert (np.abs(added[:, None] - likely).min(axis=1) < 0.05).all()
    scores, right = found["held_out_scores"], found["held_out_correct"].astype(bool)
    assert risk_threshold(scores, right, 0.1) < risk_threshold(scores[:170], right[:170], 0.1)
    assert with_ood_queries(before, unseen, labels, np.zeros(3, dtype=bool)) == before
    asked = {**before, "held_out_weight": np.ones(170, np.float32)}
    weight = with_ood_queries(asked, unseen, labels, new, np.array([1, 1, 0.5], np.float32))["held_out_weight"]
    assert weight[170:].tolist() == [0.5] * 76


def known_half(unseen: FloatArray) -> FloatArray:
    """The same, with two of the new category's four examples recognised."""
    half = unseen.copy()
    half[160:162] = [0.1, 0.1, 0.8]
    return half


def test_only_sure_queries_of_a_new_category_become_examples_and_few_of_one_voice() -> None:
    probs = np.array([[0.1, 0.9]] * 8 + [[0.5, 0.5], [0.95, 0.05], [0.2, 0.8]], np.float32)
    cluster = np.array([1] * 8 + [2, 3, 4])
    rows, labels = select_new_examples(probs, np.array([False, True]), cluster)
    assert rows.tolist() == [*range(MAX_EXAMPLES_PER_KEY), 10]
    assert (labels == 1).all()


def clouds(sizes: list[int], rng: np.random.Generator) -> LabelledEmbeddings:
    labels = np.repeat([0, 1, 2], sizes)
    rows = np.eye(8)[labels] + 0.35 * rng.standard_normal((len(labels), 8))
    return LabelledEmbeddings((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels)


def test_a_new_category_grows_from_the_log() -> None:
    before, after = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        known, log, test = clouds([80, 80, 4], rng), clouds([100, 100, 100], rng), clouds([0, 0, 200], rng)
        asked = AskedQueries(log.embeddings, np.arange(300), np.ones(300))
        for found, queries in ((before, None), (after, asked)):
            stage = fit_stage_one(known, request(asked=queries), np.random.default_rng(0))
            found.append((stage.probs(test.embeddings).argmax(axis=1) == 2).mean())
            assert len(stage.unseen) == len(known.labels)
    assert np.mean(after) > np.mean(before)


def test_a_small_category_of_a_sample_of_the_traffic_is_rare_and_not_new() -> None:
    labels = np.repeat([0, 1, 2, 3], [80, 80, 4, 9])  # the last are of `general`
    assert new_categories_of(request(), labels).tolist() == [False, False, True]
    assert not new_categories_of(request(is_traffic=True), labels).any()
    known = clouds([80, 80, 4], np.random.default_rng(0))
    stage = fit_stage_one(known, request(), np.random.default_rng(0))
    assert label_counts(stage, known, request())[0].tolist() == [80, 80, 80]
    assert label_counts(stage, known, request(is_traffic=True))[0].tolist() == [80, 80, 4]
