"""Reference values, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coe.base.errors import ArtifactError
from coe.router.classifiers import knn, logistic


def test_logistic_is_the_softmax_of_a_linear_map() -> None:
    classifier = logistic.build(logistic.Options())(
        ("a", "b", "c"), {"weights": np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]), "bias": np.array([0.5, 0.0, 0.0])}
    )
    probs = classifier.predict_proba(np.array([[1.0, 0.5], [1000.0, 0.0]], np.float32)).probs
    odds = np.exp([1.5, 1.0, -1.0])
    np.testing.assert_allclose(probs[0], odds / odds.sum(), rtol=1e-5)
    assert probs[1].tolist() == [1.0, 0.0, 0.0]  # and no overflow on the way


def test_knn_weighs_neighbours_by_their_distance() -> None:
    state = {"embeddings": np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]]), "labels": np.array([0, 1, 1])}
    classifier = knn.build(knn.Options(neighbours=2))(("a", "b", "c"), state)
    probs = classifier.predict_proba(np.array([[1.0, 0.0]], np.float32)).probs[0]
    near, far = 1 / 0.01, 1 / (0.4 + 0.01)  # cosine distances 0 and 0.4
    shares = np.array([near, far, 0.0]) / (near + far)
    np.testing.assert_allclose(probs, (shares + 0.01) / 1.03, rtol=1e-4)


def test_knn_takes_all_when_there_are_fewer_than_it_asks_for() -> None:
    state = {"embeddings": np.eye(2, dtype=np.float16), "labels": np.array([0, 1])}
    classifier = knn.build(knn.Options(neighbours=40))(("a", "b"), state)
    probs = classifier.predict_proba(np.eye(2, dtype=np.float32))
    assert probs.probs.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_knn_refuses_labels_without_a_category(labels: list[int]) -> None:
    with pytest.raises(ArtifactError, match="'labels' must hold 0 to 2"):
        knn.build(knn.Options())(("a", "b", "c"), {"embeddings": np.eye(2), "labels": np.array(labels)})
