"""Reference values and properties of the formulas, and the promise behind the threshold, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coe.base.errors import ArtifactError
from coe.router.reading.uncertainty import (
    PART_SHARE,
    Uncertainty,
    apply_temperature,
    calibrated,
    calibrated_row,
    combine,
    least_alpha,
    neighbour_distance,
    normalised_entropy,
    prefix_bounds,
    quantile_of,
    risk_threshold,
)
from coe.router.types import FloatArray, View


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


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20).filter(lambda parts: max(parts) > 1e-3),
    st.floats(0.05, 20),
    st.sampled_from([0.0, 0.4, 1.0]),
    st.booleans(),
    st.booleans(),
)
def test_one_query_is_judged_as_a_batch_of_one(
    parts: list[float], temperature: float, weight: float, has_outside: bool, has_mix: bool
) -> None:
    probs = np.array(parts, np.float32) / np.float32(sum(parts))
    mix = np.linspace(0.2, 5, len(parts), dtype=np.float32) if has_mix else None
    outside = np.array([1.5, -2.0, 0.3], np.float32) if has_outside else None
    doubt = Uncertainty(np.eye(2, dtype=np.float32), np.array([0.1, 0.4], np.float32), weight, 0.5, outside)
    row, batch = calibrated_row(probs.tolist(), temperature, mix), calibrated(probs[None], temperature, mix)
    np.testing.assert_allclose(row, batch[0], atol=1e-6)
    embedding = np.array([[3.0, 1.0]], np.float32)
    for view in View:
        score = float(doubt.score(embedding, batch, [view])[0])
        assert doubt.score_row(embedding, row, view) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("outside", [None, np.array([2.0, 1.0, 0.5], np.float32)])
def test_strangeness_counts_a_fifth_where_a_part_of_a_request_was_read(outside: FloatArray | None) -> None:
    doubt = Uncertainty(np.eye(2, dtype=np.float32), np.array([0.2, 0.4], np.float32), 0.5, 1.0, outside)
    vectors, probs = np.array([[0.6, 0.8], [0.6, 0.8]], np.float32), np.array([[0.7, 0.3], [0.7, 0.3]], np.float32)
    whole, part = (doubt.score(vectors, probs, [View.WHOLE, View.ASK]) - normalised_entropy(probs)).tolist()
    assert whole > 0
    assert part == pytest.approx(PART_SHARE * whole, rel=1e-5)


def test_threshold_by_hand() -> None:
    scores = np.arange(120, dtype=np.float32)
    right = np.ones(120, dtype=bool)
    right[[30, 60, 61, 62]] = False
    # (w + 1 + sqrt(w + 1)) / (a + 1): 3.41 / 61 = 0.0560 after 60 accepted, 7.24 / 121 = 0.0598 at the end
    assert risk_threshold(scores, right, 0.058) == 59.0
    assert risk_threshold(scores, right, 0.06) == 119.0
    # 3.41 / (a + 1) first falls to 0.06 with 56 accepted; before the first wrong one, 2 / 31 = 0.0645
    assert risk_threshold(scores[:55], right[:55], 0.06) == float("-inf")
    assert risk_threshold(scores[:56], right[:56], 0.06) == 55.0
    assert risk_threshold(scores[:19], right[:19], 0.1) == 18.0
    assert risk_threshold(scores[:18], right[:18], 0.1) == float("-inf")
    assert risk_threshold(scores[:0], right[:0], 0.1) == float("-inf")


def test_bounds_of_weighted_queries_have_their_reference_values() -> None:
    """(wrong + most + sqrt(squares of the wrong + most^2)) / (accepted + most) with weights 1, 3, 2 and 1 in order, of
    which the second and the third are wrong and the third and the fourth have equal scores."""
    scores, right = np.array([0.3, 0.1, 0.2, 0.3], np.float32), np.array([False, True, False, True])
    found, bounds = prefix_bounds(scores, right, np.array([2.0, 1.0, 3.0, 1.0], np.float32))
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert bounds == pytest.approx([6 / 4, (6 + 18**0.5) / 7, np.inf, (8 + 22**0.5) / 10])


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


RISKS = {
    "rising": lambda u: 0.6 * u,
    "late": lambda u: 0.8 * u**3,
    "just above alpha": lambda u: 0.12 + 0 * u,
    "sure and wrong": lambda u: np.where(u < 0.1, 0.5, 0.02),
}
"""P(wrong | u) for u uniform on [0, 1]."""


def draw_thresholds(risk: str, h: int, alpha: float, draws: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds (draws,), 0 where nothing is accepted, and (a + 1) / (h + 1), each for h held-out queries."""
    rng = np.random.default_rng(11)
    thresholds, coverages = np.zeros(draws), np.zeros(draws)
    for i in range(draws):
        scores = rng.random(h).astype(np.float32)
        right = rng.random(h) >= RISKS[risk](scores)
        thresholds[i] = max(risk_threshold(scores, right, alpha), 0.0)
        coverages[i] = ((scores <= thresholds[i]).sum() + 1) / (h + 1)
    return thresholds, coverages


def wrong_below(risk: str, thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(u <= t and wrong) by integration."""
    grid = np.linspace(0, 1, 20001)
    middles = (grid[1:] + grid[:-1]) / 2
    return np.interp(thresholds, grid, np.append(0.0, np.cumsum(RISKS[risk](middles)) / len(middles)))


@pytest.mark.parametrize("risk", list(RISKS))
@pytest.mark.parametrize("h", [60, 400])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2])
def test_the_promise_holds_on_average(risk: str, h: int, alpha: float) -> None:
    """As proven, in units of the held-out coverage; and for the share of wrong among the accepted, 0 if none are."""
    thresholds, coverages = draw_thresholds(risk, h, alpha, 400)
    wrong = wrong_below(risk, thresholds)
    for promised in (wrong / coverages, wrong / np.maximum(thresholds, 1e-9)):
        assert promised.mean() <= alpha + 2 * promised.std() / np.sqrt(len(promised))


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_the_promise_is_used_and_mostly_holds_for_one_router(alpha: float) -> None:
    """0.3 t of the accepted are wrong: the best threshold is alpha / 0.3."""
    thresholds, _ = draw_thresholds("rising", 4000, alpha, 200)
    assert 0.75 < thresholds.mean() * 0.3 / alpha < 1.0
    assert 0.05 < (0.3 * thresholds > alpha).mean() < 0.3


def test_nothing_is_accepted_where_no_score_is_safe() -> None:
    rng = np.random.default_rng(12)
    accepted = [risk_threshold(rng.random(400).astype(np.float32), rng.random(400) > 0.4, 0.05) for _ in range(200)]
    assert np.isneginf(accepted).mean() > 0.98


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


def test_a_discriminant_replaces_the_distance() -> None:
    fitted = Uncertainty.from_state(state(outside=np.array([0, 0, 0, 4.0, -1.0])), alpha=0.1)
    probs = np.array([[0.7, 0.3], [0.7, 0.3]], np.float32)
    inside, outside = fitted.score(np.array([[1, 0, 0, 0], [0, 0, 0, 1]], np.float32), probs)
    assert outside - inside == pytest.approx(0.5 * (1 / (1 + np.exp(-3)) - 1 / (1 + np.exp(1))))
    assert fitted.reference.shape == (0, 4)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("held_out_correct", np.ones(3)),
        ("held_out_scores", np.full(100, np.nan)),
        ("reference", np.zeros(4)),
        ("reference", np.zeros((0, 4))),
        ("outside", np.zeros(4)),
        ("outside", np.full(5, np.inf)),
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


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=60))
def test_the_least_alpha_is_the_first_at_which_anything_is_accepted(rows):
    scores = np.array([score for score, _ in rows], np.float32)
    right = np.array([is_right for _, is_right in rows])
    least = least_alpha(scores, right)
    assert risk_threshold(scores, right, least) > float("-inf")
    assert risk_threshold(scores, right, least * (1 - 1e-9)) == float("-inf")
