"""Topics among points whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.router.types import FloatArray
from coe.training.topics import find_topics, jaccard, topic_names, unused


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few numbers of clusters and subsamples: the truth here is plain."""
    monkeypatch.setattr("coe.training.topics.CLUSTERS", range(2, 7))
    monkeypatch.setattr("coe.training.topics.SUBSAMPLES", 8)


def cloud(centre: int, n: int, rng: np.random.Generator, spread: float = 0.25, dim: int = 40) -> FloatArray:
    """n points around a unit vector, normalised."""
    points = rng.normal(0, spread, (n, dim)) / np.sqrt(dim) * 4 * spread
    points[:, centre] += 1
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype=np.float32)


def noise(n: int, rng: np.random.Generator, dim: int = 40) -> FloatArray:
    points = rng.normal(0, 1, (n, dim))
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("n_topics", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3))])
def test_topics_are_found_among_leftovers(n_topics: int) -> None:
    rng = np.random.default_rng(n_topics)
    sizes = [40, 30, 25][:n_topics]
    unknown = np.concatenate([*(cloud(i, n, rng) for i, n in enumerate(sizes)), noise(60, rng)])
    truth = np.concatenate([np.repeat(np.arange(n_topics), sizes), np.full(60, -1)])
    known = np.concatenate([cloud(i, 20, rng) for i in (10, 11)])
    found = find_topics(unknown, known, 15, np.random.default_rng(0))
    assert len(found) == n_topics
    assert [len(topic.members) for topic in found] == sorted((len(topic.members) for topic in found), reverse=True)
    for topic in found:
        values, counts = np.unique(truth[topic.members], return_counts=True)
        assert values[counts.argmax()] >= 0
        assert counts.max() >= 0.9 * len(topic.members)


def test_leftovers_alone_are_no_topic() -> None:
    rng = np.random.default_rng(5)
    assert find_topics(noise(150, rng), cloud(3, 60, rng), 15, rng) == ()


def test_what_the_router_knows_is_no_topic() -> None:
    rng = np.random.default_rng(6)
    unknown = np.concatenate([cloud(0, 40, rng), noise(60, rng)])
    assert find_topics(unknown, cloud(0, 50, rng), 15, rng) == ()


def test_too_few_or_equal_queries_are_no_topic() -> None:
    rng = np.random.default_rng(7)
    assert find_topics(cloud(0, 3, rng), cloud(1, 2, rng), 4, rng) == ()
    same = np.ones((30, 8), np.float32) / np.float32(np.sqrt(8))
    assert find_topics(same, same[:10], 5, rng) == ()


def test_names_are_the_words_that_set_a_topic_apart() -> None:
    topics = [
        ["how do I repot an orchid", "why does my orchid droop", "orchid soil, how often to water"],
        ["how do I tune a guitar", "which guitar strings are best", "guitar chords for a song"],
        [],
    ]
    names = topic_names(topics, ["how do I cook rice", "why is the sky blue"], ["facts"])
    assert names[0].split("-")[0] == "orchid"
    assert names[1].split("-")[0] == "guitar"
    assert names[2] == "topic-3"


def test_a_name_that_is_taken_gets_a_number() -> None:
    assert unused("sql", {"sql", "sql-2"}) == "sql-3"


@given(st.lists(st.booleans(), min_size=1), st.data())
def test_jaccard_is_symmetric_and_one_for_equals(one, data) -> None:
    two = data.draw(st.lists(st.booleans(), min_size=len(one), max_size=len(one)))
    a, b = np.array(one), np.array(two)
    assert jaccard(a, b) == jaccard(b, a)
    assert 0 <= jaccard(a, b) <= 1
    assert jaccard(a, a) == float(a.any())
