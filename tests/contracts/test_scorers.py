"""Contract of scorers, run on every example of every kind, fitted on the same graded queries."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from coe.router import plugins
from coe.router.protocols import ArrayState, ExpertScorer, ScorerOf
from coe.router.quality import Measured
from coe.router.types import CategoryProbs, QueryBatch
from coe.training.graded_queries import GradedQueries
from coe.training.scorer_fit import FAMILY, fit_arrays, out_of_fold
from tests.contracts.examples import cases_of
from tests.outcome_tables import scored_table

EXPERTS = ("a", "b", "idle")
CATEGORIES = ("code", "facts")
WORDS = ("def sort(values): return a list in order", "Which river is the longest of the continent?")
CASES = cases_of(FAMILY)
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def graded(n: int, seed: int) -> GradedQueries:
    """Expert a is right on code, b on facts, idle never; a few grades are missing."""
    rng = np.random.default_rng(seed)
    category = np.arange(n) % 2
    scores = np.stack([category == 0, category == 1, np.zeros(n)], axis=1).astype(np.float32)
    scores[rng.random(scores.shape) < 0.05] = np.nan
    vectors = rng.standard_normal((n, 8)).astype(np.float32) * 0.3
    vectors[np.arange(n), category] += 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = tuple(f"{WORDS[c]} {i}" for i, c in enumerate(category))
    table = scored_table(scores, [CATEGORIES[c] for c in category], EXPERTS, texts=texts)
    probs = np.where(np.arange(2) == category[:, None], 0.9, 0.1).astype(np.float32)
    return GradedQueries(table, vectors, CategoryProbs(CATEGORIES, probs))


@cache
def arrays(kind: str, number: int) -> ArrayState:
    options = plugins.load(FAMILY, kind).EXAMPLES[number].model_dump()
    return fit_arrays(kind, options, graded(240, 0), np.random.default_rng(0))


def filled(kind: str, number: int, columns: tuple[int, ...] = (0, 1, 2)) -> ExpertScorer:
    """Fitted, stored as an artifact stores it, and read again."""
    plugin, data = plugins.load(FAMILY, kind), graded(240, 0)
    state = load(save({name: np.ascontiguousarray(array) for name, array in arrays(kind, number).items()}))
    made: ScorerOf = plugin.build(plugin.EXAMPLES[number])
    return made(Measured(tuple(EXPERTS[c] for c in columns), data.evidence.columns(columns)), state, columns)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_new_queries_get_the_expert_that_is_right(kind: str, number: int) -> None:
    data = graded(60, 1)
    found = filled(kind, number).score(data.batch, data.probs, data.decided)
    assert found.experts == EXPERTS
    assert found.quality.shape == found.stderr.shape == (60, 3)
    assert found.quality.dtype == np.float32
    assert np.isfinite(found.quality).all()
    assert (found.quality.argmax(axis=1) == data.rows).mean() >= 0.9


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_batch_equals_one_by_one(kind: str, number: int) -> None:
    data, scorer = graded(5, 2), filled(kind, number)
    together = scorer.score(data.batch, data.probs, data.decided).quality
    for i in range(5):
        one = QueryBatch(data.batch.queries[i : i + 1], data.embeddings[i : i + 1])
        own = CategoryProbs(CATEGORIES, data.probs.probs[i : i + 1])
        np.testing.assert_allclose(scorer.score(one, own, data.decided[i : i + 1]).quality[0], together[i], atol=1e-5)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_an_expert_that_left_takes_only_its_column_along(kind: str, number: int) -> None:
    data = graded(12, 3)
    whole = filled(kind, number).score(data.batch, data.probs, data.decided).quality
    part = filled(kind, number, (2, 0)).score(data.batch, data.probs, data.decided)
    assert part.experts == ("idle", "a")
    np.testing.assert_allclose(part.quality, whole[:, [2, 0]], atol=1e-6)


@pytest.mark.parametrize("kind", plugins.kinds(FAMILY))
def test_a_kind_says_what_it_does(kind: str) -> None:
    import importlib

    module = importlib.import_module(f"coe.{FAMILY}.{kind}")
    assert module.LABEL
    assert len(module.HOW) > 10
    scorer, data = filled(kind, 0), graded(60, 1)
    found = scorer.score(data.batch, data.probs, data.decided).quality
    alike = all(len(np.unique(found[np.asarray(data.decided) == row], axis=0)) == 1 for row in set(data.decided))
    assert scorer.decides_by_query or alike


@pytest.mark.parametrize("kind", plugins.kinds(FAMILY))
def test_an_expert_without_any_grade_can_be_fitted(kind: str, tmp_path: Path) -> None:
    data = graded(80, 5)
    scores = data.table.scores.copy()
    scores[:, 2] = np.nan
    ungraded = replace(data, table=replace(data.table, scores=scores))
    state = fit_arrays(kind, {}, ungraded, np.random.default_rng(0))
    assert np.isfinite(out_of_fold(kind, {}, ungraded, np.random.default_rng(0))).all()
    assert all(np.isfinite(array).all() for array in state.values())
