"""Contract of classifiers and their fitters, run on every example of every kind."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from coe.base.errors import ArtifactError
from coe.router import plugins
from coe.router.protocols import ClassifierOf
from tests.contracts.examples import cases_of

FAMILY = "router.classifiers"
CATEGORIES = ("code", "chat", "facts")
CASES = cases_of(FAMILY)


def toy(n: int, seed: int, k: int = 3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors in k separable clouds, with their cloud numbers."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    rows = np.eye(k, 8)[labels] + 0.15 * rng.standard_normal((n, 8))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def made_by(kind: str, number: int) -> ClassifierOf:
    plugin = plugins.load(FAMILY, kind)
    made: ClassifierOf = plugin.build(plugin.EXAMPLES[number])
    return made


@cache
def fitted_state(kind: str, number: int, k: int = 3) -> dict[str, NDArray[np.generic]]:
    embeddings, labels = toy(90, seed=1, k=k)
    options = plugins.load(FAMILY, kind).EXAMPLES[number]
    state: dict[str, NDArray[np.generic]] = plugins.load(FAMILY, kind).fit(options, embeddings, labels, k)
    return state


@pytest.mark.parametrize(("kind", "number"), CASES)
@pytest.mark.parametrize("k", [2, 3])
def test_a_fitted_one_learns_a_separable_problem(kind: str, number: int, k: int) -> None:
    classifier = made_by(kind, number)(CATEGORIES[:k], fitted_state(kind, number, k))
    embeddings, labels = toy(60, seed=2, k=k)
    predicted = classifier.predict_proba(embeddings)
    assert predicted.categories == classifier.categories_ == CATEGORIES[:k]
    assert predicted.probs.shape == (60, k)
    assert predicted.probs.dtype == np.float32
    np.testing.assert_allclose(predicted.probs.sum(axis=1), 1.0, atol=1e-5)
    assert (predicted.probs > 0).all()
    assert (predicted.probs.argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_batch_equals_one_by_one(kind: str, number: int) -> None:
    classifier = made_by(kind, number)(CATEGORIES, fitted_state(kind, number))
    embeddings = np.vstack([toy(20, seed=3)[0], np.zeros((1, 8), np.float32)])
    together = classifier.predict_proba(embeddings).probs
    alone = np.concatenate([classifier.predict_proba(embeddings[i : i + 1]).probs for i in range(21)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert classifier.predict_proba(embeddings[:0]).probs.shape == (0, 3)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_the_same_data_gives_the_same_state(kind: str, number: int) -> None:
    first, second = fitted_state(kind, number), fitted_state.__wrapped__(kind, number)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_query_of_other_dimensions_is_refused(kind: str, number: int) -> None:
    classifier = made_by(kind, number)(CATEGORIES, fitted_state(kind, number))
    with pytest.raises(ArtifactError, match="7 dimensions; expected 8"):
        classifier.predict_proba(np.zeros((1, 7), np.float32))


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_damaged_state_is_refused(kind: str, number: int) -> None:
    made, state = made_by(kind, number), fitted_state(kind, number)
    for name, array in state.items():
        lacking = {key: value for key, value in state.items() if key != name}
        with pytest.raises(ArtifactError, match=name):
            made(CATEGORIES, lacking)
        with pytest.raises(ArtifactError, match=name):
            made(CATEGORIES, state | {name: array[None]})
        if array.dtype.kind == "f":
            broken = array.copy()
            broken.flat[0] = np.nan
            with pytest.raises(ArtifactError, match="not finite"):
                made(CATEGORIES, state | {name: broken})
    with pytest.raises(ArtifactError):
        made(CATEGORIES[:2], state)
