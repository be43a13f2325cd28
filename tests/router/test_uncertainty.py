"""Reference values and properties of the formulas, and the promise behind the threshold, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router.errors import ArtifactError
from router.uncertainty import (
    Uncertainty,
    apply_temperature,
    combine,
    expected_calibration_error,
    neighbour_distance,
    normalised_entropy,
    quantile_of,
    risk_threshold,
)


def as_probs(rows: object) -> NDArray[np.float32]:
    values = np.asarray(rows, dtype=np.float64) + 1e-6
    return (values / values.sum(axis=1, keepdims=True)).astype(np.float32)


prob_rows = st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=8).map(as_probs)


def test_temperature_two_takes_the_square_root_of_odds() -> None:
    probs = apply_temperature(np.array([[0.8, 0.2]], np.float32), 2.0)
    np.testing.assert_allclose(probs[0, 0] / probs[0, 1], 2.0, rtol=1e-5)


@given(prob_rows, st.floats(0.2, 5))
def test_temperature_keeps_the_order_and_moves_confidence(probs: NDArray[np.float32], temperature: float) -> None:
    scaled = apply_temperature(probs, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(apply_temperature(probs, 1.0), probs, atol=1e-5)
    top = probs.argmax(axis=1)
    rows = np.arange(len(probs))
    np.testing.assert_allclose(scaled[rows, top], scaled.max(axis=1), rtol=1e-5)
    moved = scaled.max(axis=1) - probs.max(axis=1)
    assert (moved * (1 - temperature) >= -1e-5).all()


def test_entropy_of_a_coin_over_four_is_a_half() -> None:
    rows = np.array([[0.5, 0.5, 0, 0], [0.25] * 4, [1, 0, 0, 0]], np.float32)
    np.testing.assert_allclose(normalised_entropy(rows), [0.5, 1.0, 0.0], atol=1e-6)


@given(prob_rows)
def test_entropy_lies_between_0_and_1(probs: NDArray[np.float32]) -> None:
    entropy = normalised_entropy(probs)
    assert ((entropy >= -1e-6) & (entropy <= 1 + 1e-6)).all()


def test_distance_is_the_mean_over_the_five_nearest() -> None:
    angles = np.deg2rad([0, 10, 20, 30, 40, 90, 180])
    reference = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    distance = neighbour_distance(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), reference)
    np.testing.assert_allclose(distance[0], 1 - np.cos(angles[:5]).mean(), atol=1e-6)
    assert distance[1] == 1.0
    alone = neighbour_distance(reference[:1], reference[:2])
    np.testing.assert_allclose(alone, [1 - np.cos(angles[:2]).mean()], atol=1e-6)


def test_quantile_and_combination() -> None:
    sample = np.array([0.1, 0.2, 0.3, 0.4], np.float32)
    quantile = quantile_of(np.array([0.05, 0.25, 0.9], np.float32), sample)
    assert quantile.tolist() == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(combine(np.array([0.2] * 3, np.float32), quantile, 0.5), [0.2, 0.45, 0.7], atol=1e-6)


def test_calibration_error_by_hand() -> None:
    probs = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]], np.float32)
    # confidence 0.9 with half right, confidence 0.6 with all right
    error = expected_calibration_error(probs, np.array([0, 1, 1, 1]))
    assert error == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0), abs=1e-6)
    assert expected_calibration_error(np.array([[1.0, 0.0]], np.float32), np.array([0])) == 0.0


def test_threshold_by_hand() -> None:
    scores = np.arange(40, dtype=np.float32)
    right = np.ones(40, dtype=bool)
    right[[10, 30, 31, 32]] = False
    # (wrong + 1) / (accepted + 1): 2 / 31 after 30 accepted, 3 / 32 after 31, 4 / 33 after 32, 5 / 41 at the end
    assert risk_threshold(scores, right, 0.1) == 30.0
    assert risk_threshold(scores, right, 0.125) == 39.0
    assert risk_threshold(scores[:9], right[:9], 0.1) == 8.0
    assert risk_threshold(scores[:8], right[:8], 0.1) == float("-inf")
    assert risk_threshold(scores[:0], right[:0], 0.1) == float("-inf")


def test_equal_scores_are_accepted_or_refused_together() -> None:
    scores = np.repeat(np.array([0.0, 1.0], np.float32), 60)
    right = np.ones(120, dtype=bool)
    right[-40:] = False
    for order in (np.arange(120), np.arange(120)[::-1]):
        assert risk_threshold(scores[order], right[order], 0.1) == 0.0


@given(st.integers(0, 2**32 - 1), st.floats(0.02, 0.3), st.floats(0.02, 0.3))
@settings(max_examples=40)
def test_a_looser_promise_accepts_no_less(seed: int, one: float, other: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random(200).astype(np.float32)
    right = rng.random(200) > scores * 0.4
    low, high = sorted((one, other))
    assert risk_threshold(scores, right, low) <= risk_threshold(scores, right, high)


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_the_promise_holds_on_average(alpha: float) -> None:
    """P(wrong | u) = 0.6 u with u uniform: a threshold t accepts the share t, of which 0.3 t are wrong.

    Against the share below t', the threshold that one more query gives without the pessimistic error.
    """
    rng = np.random.default_rng(11)
    thresholds, beyond = [], []
    for _ in range(2000):
        scores = rng.random(401).astype(np.float32)
        right = rng.random(401) > 0.6 * scores
        thresholds.append(max(risk_threshold(scores[:400], right[:400], alpha), 0.0))
        order = np.argsort(scores)
        safe = np.flatnonzero(np.cumsum(~right[order]) / np.arange(1, 402) <= alpha)
        beyond.append(scores[order][safe[-1]] if len(safe) else 0.0)
    t = np.array(thresholds)
    wrong = (0.3 * t**2).mean()
    assert wrong <= 1.02 * alpha * np.mean(beyond)  # 2%: the simulation's own error
    assert wrong <= 1.25 * alpha * t.mean()
    assert t.mean() > 0.7 * alpha / 0.3  # and it is no empty promise


def state(**changes: object) -> dict[str, NDArray[np.generic]]:
    scores = np.linspace(0, 1, 100)
    arrays: dict[str, object] = {
        "reference": np.eye(4, dtype=np.float16),
        "held_out_distances": np.array([0.9, 0.1, 0.5], np.float32),
        "held_out_scores": scores,
        "held_out_correct": (scores < 0.5).astype(np.uint8),
        "weight": np.array([0.5]),
    }
    return {name: np.asarray(array) for name, array in (arrays | changes).items()}


def test_a_far_query_is_less_sure_than_a_near_one() -> None:
    fitted = Uncertainty.from_state(state(), alpha=0.1)
    probs = np.array([[0.7, 0.3], [0.7, 0.3]], np.float32)
    near, far = fitted.score(np.array([[1, 0, 0, 0], [-1, -1, -1, -1]], np.float32) / 2, probs)
    assert far - near == pytest.approx(0.5 * (1 - 2 / 3))  # quantiles 1 and 2 of 3, weight 0.5
    assert 0.4 < fitted.threshold < 0.6


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("held_out_correct", np.ones(3)),
        ("held_out_scores", np.full(100, np.nan)),
        ("reference", np.zeros(4)),
        ("reference", np.zeros((0, 4))),
        ("weight", np.array([-1.0])),
        ("weight", np.array([1.0, 2.0])),
    ],
)
def test_a_damaged_state_is_refused(name: str, array: NDArray[np.generic]) -> None:
    with pytest.raises(ArtifactError, match=name):
        Uncertainty.from_state(state(**{name: array}), alpha=0.1)


def test_another_width_is_refused() -> None:
    with pytest.raises(ArtifactError, match="3 dimensions; expected 4"):
        Uncertainty.from_state(state(), alpha=0.1).score(np.zeros((1, 3), np.float32), np.ones((1, 1), np.float32))
