from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from router.cascade import FEATURES, Gate, ReplyGain
from router.errors import DataError
from router.uncertainty import expected_calibration_error
from training.cascade import MIN_FOR_ISOTONIC, MIN_REPLIES, fit_gate, fit_logistic, fit_reply_gain, isotonic
from training.cascade_simulation import SimulatedQueries, compare, simulate
from training.types import OutcomeTable


def gate_error(gate: Gate, features: NDArray[np.float32], truth: NDArray[np.float64]) -> float:
    """Root mean square distance of the gate's probabilities from the true ones."""
    return float(np.sqrt(((gate.prob_correct(features) - truth) ** 2).mean()))


@pytest.mark.parametrize("n", [400, 4000])
def test_the_gate_finds_the_true_probability(n: int) -> None:
    """Logistic truth: Platt's calibration below a thousand answers, isotonic above."""
    rng = np.random.default_rng(3)
    features = (rng.standard_normal((n, len(FEATURES))) * [1, 5, 0.1, 1, 1] + [-1, 3, 0, 2, 0]).astype(np.float32)
    truth = 1 / (1 + np.exp(-(0.5 + (features[:, 0] + 1) + 0.3 * (features[:, 1] - 3))))
    state = fit_gate(features, rng.random(n) < truth, rng)
    assert (len(state["knots"]) > 2) is (n >= MIN_FOR_ISOTONIC)
    assert gate_error(Gate.from_state(state), features, truth) < 0.06


def test_isotonic_calibration_mends_what_no_line_can() -> None:
    """The truth jumps from 0.2 to 0.9: far from logistic in any feature."""
    rng = np.random.default_rng(4)
    features = rng.uniform(-3, 3, (6000, len(FEATURES))).astype(np.float32)
    truth = np.where(features[:, 0] > 1.5, 0.9, 0.2)
    state = fit_gate(features, rng.random(6000) < truth, rng)
    gate = Gate.from_state(state)
    line = Gate(gate.weights, gate.bias, np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert gate_error(gate, features, truth) < 0.5 * gate_error(line, features, truth)


def test_a_constant_feature_gets_no_weight() -> None:
    rng = np.random.default_rng(5)
    features = np.column_stack([rng.standard_normal(300), np.full(300, 7.0)])
    weights, bias = fit_logistic(features, rng.random(300) < 1 / (1 + np.exp(-2 * features[:, 0] - 1)))
    assert weights[1] == 0.0
    assert weights[0] == pytest.approx(2.0, abs=0.5)
    assert bias == pytest.approx(1.0, abs=0.4)


def test_isotonic_calibration_by_hand() -> None:
    # pooled: 0, 0, then (1, 0) to 0.5, then 1, 1; a certain level is drawn in to 1 / 8 and 7 / 8
    probs = np.array([0.1, 0.3, 0.4, 0.6, 0.7, 0.9])
    knots, levels = isotonic(probs, np.array([False, False, True, False, True, True]))
    np.testing.assert_allclose(knots, [0, 0.2, 0.5, 0.8, 1])
    np.testing.assert_allclose(levels, [1 / 8, 1 / 8, 1 / 2, 7 / 8, 7 / 8])


def test_a_gate_needs_both_kinds_of_answers() -> None:
    with pytest.raises(DataError, match="got 36 and 4"):
        fit_gate(np.zeros((40, len(FEATURES)), np.float32), np.arange(40) >= 4, np.random.default_rng(0))


@pytest.fixture(scope="module")
def telling() -> tuple[SimulatedQueries, SimulatedQueries]:
    rng = np.random.default_rng(6)
    return simulate(rng, 3000, 0.85), simulate(rng, 6000, 0.85)


@pytest.fixture(scope="module")
def mute() -> tuple[SimulatedQueries, SimulatedQueries]:
    rng = np.random.default_rng(7)
    return simulate(rng, 3000, 0.5), simulate(rng, 6000, 0.5)


def test_the_simulation_is_what_it_says(telling: tuple[SimulatedQueries, SimulatedQueries]) -> None:
    from scipy.stats import rankdata

    drawn = telling[1]
    for right, prior in ((drawn.cheap_right, drawn.cheap_prior), (drawn.strong_right, drawn.strong_prior)):
        probs = np.column_stack([1 - prior, prior])
        assert expected_calibration_error(probs, right.astype(np.int64)) < 0.02
    ranks, right = rankdata(drawn.features[:, 0]), drawn.cheap_right
    wins = ranks[right].sum() - right.sum() * (right.sum() + 1) / 2
    # the tokens' own noise takes a little from the 0.85 of the confidence behind them
    assert 0.80 < wins / (right.sum() * (~right).sum()) < 0.86


def test_the_gate_is_calibrated_on_new_answers(telling: tuple[SimulatedQueries, SimulatedQueries]) -> None:
    fitted_on, tested_on = telling
    gate = Gate.from_state(fit_gate(fitted_on.features, fitted_on.cheap_right, np.random.default_rng(0)))
    prob = gate.prob_correct(tested_on.features)
    probs = np.column_stack([1 - prob, prob])
    assert expected_calibration_error(probs, tested_on.cheap_right.astype(np.int64)) < 0.03


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_cascade_wins_where_answers_tell(telling: tuple[SimulatedQueries, SimulatedQueries], share: float) -> None:
    arms = compare(*telling, escalated_share=share, cost_ratio=20.0, rng=np.random.default_rng(1))
    for name in ("cascade", "cascade_by_gain", "router", "random"):
        assert arms[name].cost == pytest.approx(1 + 20 * share, rel=0.08)
    assert arms["perfect_gate"].cost <= 1 + 20 * share
    gain = arms["cascade"].right.astype(float) - arms["router"].right
    assert gain.mean() - 2 * gain.std() / np.sqrt(len(gain)) > 0
    names = ("always_cheap", "random", "router", "cascade", "perfect_gate")
    accuracies = [arms[name].accuracy for name in names]
    assert accuracies == sorted(accuracies)


def test_a_router_wins_where_answers_tell_nothing(mute: tuple[SimulatedQueries, SimulatedQueries]) -> None:
    """The cascade pays for every cheap answer and learns nothing from it; it must not be better than chance allows."""
    arms = compare(*mute, escalated_share=0.3, cost_ratio=2.0, rng=np.random.default_rng(2))
    loss = arms["router"].right.astype(float) - arms["cascade_by_gain"].right
    assert loss.mean() - 2 * loss.std() / np.sqrt(len(loss)) > 0
    assert arms["always_strong"].accuracy > arms["router"].accuracy > arms["always_cheap"].accuracy


def replies(n: int, experts: int = 2) -> tuple[OutcomeTable, NDArray[np.float32]]:
    """Long replies of the first expert are wrong, whatever was predicted; the second is always right."""
    rng = np.random.default_rng(6)
    tokens = rng.integers(1, 400, size=(n, experts)).astype(np.float32)
    scores = np.ones((n, experts), dtype=np.float32)
    scores[:, 0] = tokens[:, 0] < 100
    unknown = np.full_like(scores, np.nan)
    table = OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in range(n)),
        texts=tuple(f"question {i}" for i in range(n)),
        categories=("a",) * n,
        splits=("train",) * n,
        experts=("cheap", "dear", "third")[:experts],
        scores=scores,
        cost_usd=unknown,
        output_tokens=tokens,
        latency_ms=unknown,
        metric="acc",
        source="replies",
    )
    return table, rng.random((n, experts)).astype(np.float32)


def learned(n: int, experts: int = 2) -> ReplyGain | None:
    table, predicted = replies(n, experts)
    return fit_reply_gain(table, "stack", predicted)


def test_the_gain_after_a_reply_learns_what_its_length_tells() -> None:
    gain = learned(500)
    assert gain is not None
    assert (gain.weak, gain.strong, gain.kind) == ("cheap", "dear", "stack")
    rng = np.random.default_rng(7)
    weak, strong = rng.random((2, 200))
    after_short, after_long = (gain.predict(weak, strong, np.full(200, length)) for length in (20.0, 350.0))
    assert after_short.max() < after_long.min()
    assert after_long.mean() == pytest.approx(1.0, abs=0.25)


def test_a_gain_needs_two_experts_and_enough_replies() -> None:
    assert learned(MIN_REPLIES) is not None
    assert learned(MIN_REPLIES - 1) is None
    assert learned(MIN_REPLIES, experts=3) is None


def test_lengths_of_the_weak_expert_are_needed_and_those_of_the_strong_one_are_not() -> None:
    table, predicted = replies(MIN_REPLIES)
    table.output_tokens[:, 1] = np.nan
    assert fit_reply_gain(table, "stack", predicted) is not None
    table.output_tokens[0, 0] = np.nan
    assert fit_reply_gain(table, "stack", predicted) is None
