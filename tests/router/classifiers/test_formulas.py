"""Reference values, worked out by hand."""

from __future__ import annotations

import numpy as np

from coe.router.classifiers import logistic


def test_logistic_is_the_softmax_of_a_linear_map() -> None:
    classifier = logistic.build(logistic.Options())(
        ("a", "b", "c"), {"weights": np.array([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]]), "bias": np.array([0.5, 0.0, 0.0])}
    )
    probs = classifier.predict_proba(np.array([[1.0, 0.5], [1000.0, 0.0]], np.float32)).probs
    odds = np.exp([1.5, 1.0, -1.0])
    np.testing.assert_allclose(probs[0], odds / odds.sum(), rtol=1e-5)
    assert probs[1].tolist() == [1.0, 0.0, 0.0]  # and no overflow on the way
