from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coe.retrieval.experts import bm25
from coe.retrieval.training.build_library import extend_library, without_data_set
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.labels import label_pilots
from coe.retrieval.training.learned_fusion import (
    FOLDS,
    MIN_QUERIES,
    RIDGE,
    Candidates,
    cross_scores,
    learn_weights,
    learned_arm,
    scores_by,
)
from coe.retrieval.training.searcher import Searcher, all_arms
from coe.retrieval.types import BASE, EVIDENCE, Arm, BaseExpert
from coe.router.encoders.hashing import HashingEncoder

FEATURES = 2 + len(EVIDENCE)
PHRASES = 2 + EVIDENCE.index("phrases")


def queries(count: int, decides: int = PHRASES, seed: int = 0) -> list[Candidates]:
    """Twelve documents a query, the relevant one being the largest in one feature; all else is noise."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        features = rng.random((12, FEATURES))
        found.append(Candidates(np.arange(12), features, {int(features[:, decides].argmax()): 1}))
    return found


def test_the_feature_that_tells_gets_the_weight() -> None:
    weights = learn_weights(queries(60))
    assert np.abs(weights).sum() == pytest.approx(1)
    assert weights[PHRASES] > 0.8
    assert scores_by(weights, queries(40, seed=1)).mean() > 0.95


def test_the_weights_are_where_the_loss_is_least() -> None:
    """Cao et al. 2007, equation 6 with the grades' shares as the target, written out query by query."""
    taught = queries(30)
    spread = np.concatenate([query.features for query in taught]).std(axis=0)

    def loss(weights: np.ndarray) -> float:
        total = RIDGE / 2 * float(((weights * spread) ** 2).sum())
        for query in taught:
            sums = query.features @ weights
            total += float(np.log(np.exp(sums).sum()) - query.targets @ sums)
        return total

    direction = learn_weights(taught)
    sizes = np.linspace(1, 200, 2000)
    best = direction * sizes[int(np.argmin([loss(direction * size) for size in sizes]))]
    for feature in range(FEATURES):
        for change in (-0.3, 0.3):
            moved = best.copy()
            moved[feature] += change
            if feature >= 2 or moved[feature] >= 0:
                assert loss(moved) > loss(best) - 1e-3


def test_a_ranking_never_counts_against_a_document_and_evidence_may() -> None:
    taught = queries(60)
    against = [
        Candidates(q.rows, q.features, {int((q.features[:, 0] + q.features[:, PHRASES]).argmin()): 1}) for q in taught
    ]
    weights = learn_weights(against)
    assert weights[:2].min() >= 0
    assert weights[PHRASES] < -0.5


def test_too_few_queries_teach_nothing() -> None:
    assert learn_weights(queries(MIN_QUERIES - 1)) is None
    missed = [Candidates(q.rows, q.features, {99: 1}) for q in queries(MIN_QUERIES)]  # nobody found what is relevant
    assert learn_weights(missed) is None
    assert cross_scores(queries(MIN_QUERIES)) is None
    assert cross_scores(queries(2 * MIN_QUERIES)) is not None


def test_a_query_is_scored_by_weights_that_it_did_not_teach() -> None:
    every = queries(60)
    every[0::FOLDS] = queries(60 // FOLDS, decides=0, seed=5)
    others = learn_weights([query for place, query in enumerate(every) if place % FOLDS])
    scores = cross_scores(every)
    np.testing.assert_array_equal(scores[0::FOLDS], scores_by(others, every[0::FOLDS]))
    assert scores[0::FOLDS].mean() < 0.8 < scores[1::FOLDS].mean()


def test_an_arm_has_the_weights_of_members_and_evidence() -> None:
    arm = learned_arm(("law", "bm25"), "faq", np.array([0.5, 0.1, 0.2, -0.1, 0.1]))
    assert (arm.weights, arm.evidence, arm.learned_on) == ((0.5, 0.1), (0.2, -0.1, 0.1), "faq")
    assert arm.name == "law+bm25:faq"


def phrase_collection(name: str, count: int) -> Collection:
    """A relevant document has the query's two words side by side; others have them apart, more often."""
    ids, texts, grades, documents = [], [], [], []
    for number in range(count):
        one, two = f"{name}alpha{number}", f"{name}beta{number}"
        documents += [f"{one} filler {two} {one} filler {two}", f"{one} {two} filler filler filler words"]
        ids.append(f"q{number}")
        texts.append(f"{one} {two}")
        grades.append({2 * number + 1: 1})
    found = Queries(tuple(ids), tuple(texts), tuple(grades))
    return Collection(name, tuple(f"d{i:03}" for i in range(len(documents))), tuple(documents), {"train": found})


def searchers(cache: Path) -> list[Searcher]:
    base = BaseExpert(HashingEncoder(16))
    experts = {BASE: base, "bm25": bm25.build(bm25.Options())("bm25", base.encoder)}
    return [Searcher(phrase_collection(name, count), experts, cache) for name, count in (("faq", 60), ("few", 5))]


def test_what_a_collection_teaches_is_measured_on_all(tmp_path: Path) -> None:
    both = searchers(tmp_path)
    fixed = all_arms(both[0].experts)
    parts, arms = label_pilots(both, fixed)
    (learned,) = arms[len(fixed) :]
    assert (learned.members, learned.learned_on) == ((BASE, "bm25"), "faq")
    assert parts[0].scores[:, -1].mean() > parts[0].scores[:, :-1].mean(axis=0).max() + 0.2
    np.testing.assert_array_equal(parts[1].scores, both[1].arm_scores(parts[1].queries, arms))
    assert parts[1].scores[:, -1].tolist() == [1.0] * 5
    again, known = label_pilots(both, fixed, known=arms)
    assert known == arms
    np.testing.assert_array_equal(again[1].scores, parts[1].scores)


def test_what_a_data_set_taught_goes_with_it_and_is_learned_anew(tmp_path: Path) -> None:
    both = searchers(tmp_path)
    parts, arms = label_pilots(both, all_arms(both[0].experts))
    experts = {BASE: "b", "bm25": "w"}
    library = extend_library(None, parts, arms, experts, created_at="2026-01-01T00:00:00+00:00")
    fewer = without_data_set(library, "faq")
    assert fewer.arms == arms[:-1]
    assert fewer.scores.shape == fewer.measured.shape == (5, len(arms) - 1)
    assert without_data_set(library, "few").arms == arms
    back = extend_library(fewer, parts, arms, experts, created_at="2026-01-01T00:00:00+00:00")
    assert back.arms == arms
    assert back.measured.all()


def test_without_words_there_is_nothing_to_weigh(tmp_path: Path) -> None:
    base = BaseExpert(HashingEncoder(16))
    searcher = Searcher(phrase_collection("faq", 60), {BASE: base}, tmp_path)
    alone = (Arm(members=(BASE,), weights=(1.0,)),)
    parts, arms = label_pilots([searcher], all_arms(searcher.experts))
    assert arms == alone
    assert parts[0].scores.shape == (60, 1)
