"""Features of an answer by hand, the gate's formula, and what each threshold promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from router.cascade import (
    FEATURES,
    Gate,
    ReplyGain,
    accepts,
    answer_features,
    reply_terms,
    tau_for_budget,
    tau_for_cost,
)
from router.errors import ArtifactError


def test_features_by_hand() -> None:
    top = np.log(np.array([[0.5, 0.25], [0.1, 0.8]], np.float32))
    chosen = np.log(np.array([0.5, 0.1], np.float32))
    found = dict(zip(FEATURES, answer_features(chosen, top, 0.75).tolist(), strict=True))
    assert found["mean_logprob"] == pytest.approx((math.log(0.5) + math.log(0.1)) / 2, abs=1e-6)
    assert found["mean_margin"] == pytest.approx((math.log(2) + math.log(8)) / 2, abs=1e-6)
    entropies = [-sum(p * math.log(p) for p in row) for row in ((0.5, 0.25, 0.25), (0.1, 0.8, 0.1))]
    assert found["mean_entropy"] == pytest.approx(sum(entropies) / 2, abs=1e-6)
    assert found["log_length"] == pytest.approx(math.log(3), abs=1e-6)
    assert found["prior_logit"] == pytest.approx(math.log(3), abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 30), st.integers(2, 6))
def test_features_are_finite_and_do_not_depend_on_the_order_of_tokens(seed: int, prior: float, t: int, j: int) -> None:
    rng = np.random.default_rng(seed)
    top = np.log(rng.dirichlet(np.full(j + 1, 0.02), size=t)[:, :j] + 1e-30).astype(np.float32)
    features = answer_features(top[:, 0], top, prior)
    assert np.isfinite(features).all()
    assert features[1] >= 0
    assert -1e-6 <= features[2] <= math.log(j + 1) + 1e-6
    mixed = rng.permutation(t)
    np.testing.assert_allclose(answer_features(top[mixed, 0], top[mixed][:, ::-1], prior), features, rtol=1e-4)


@pytest.mark.parametrize(("chosen", "top"), [((0,), (0, 2)), ((3,), (3, 1)), ((3,), (2, 2)), ((3,), (3,))])
def test_an_answer_without_log_probabilities_is_refused(chosen: tuple[int, ...], top: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        answer_features(np.zeros(chosen, np.float32), np.zeros(top, np.float32), 0.5)


def state(**changes: object) -> dict[str, NDArray[np.generic]]:
    arrays: dict[str, object] = {
        "weights": np.array([1.0, 0.0, -1.0, 0.0, 0.5]),
        "bias": np.array([0.25]),
        "knots": np.array([0.2, 0.6]),
        "levels": np.array([0.1, 0.9]),
    }
    return {name: np.asarray(array) for name, array in (arrays | changes).items()}


def test_the_gate_by_hand() -> None:
    features = np.array([[1.0, 9.0, 1.25, 9.0, 0.0], [9.0, 0, 0, 0, 0], [-9.0, 0, 0, 0, 0]], np.float32)
    # logit 0 gives 0.5, three quarters of the way between the knots; beyond them the last level holds
    np.testing.assert_allclose(Gate.from_state(state()).prob_correct(features), [0.7, 0.9, 0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("weights", np.zeros(4)),
        ("bias", np.zeros(2)),
        ("knots", np.array([0.6, 0.2])),
        ("levels", np.array([0.9, 0.1])),
        ("levels", np.array([0.1, 1.1])),
        ("levels", np.array([0.1, np.nan])),
        ("knots", np.zeros(0)),
    ],
)
def test_a_damaged_gate_is_refused(name: str, array: NDArray[np.generic]) -> None:
    changes = {"knots": array, "levels": array} if len(array) == 0 else {name: array}
    with pytest.raises(ArtifactError, match=name):
        Gate.from_state(state(**changes))


@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 0.9]), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_a_budget_is_kept_and_used(values: list[float], share: float) -> None:
    probs = np.array(values, np.float32)
    tau = tau_for_budget(probs, share)
    escalated = int((~accepts(probs, tau)).sum())
    allowed = math.floor(share * len(probs) + 1e-9)
    assert escalated <= allowed
    # the next larger threshold would escalate too many
    assert tau == math.inf or int((probs <= tau).sum()) > allowed


def test_a_budget_by_hand() -> None:
    probs = np.array([0.9, 0.1, 0.5, 0.3], np.float32)
    assert tau_for_budget(probs, 0.0) == pytest.approx(0.1)
    assert tau_for_budget(probs, 0.5) == pytest.approx(0.5)
    assert tau_for_budget(probs, 1.0) == math.inf
    assert accepts(probs, 0.5).tolist() == [True, False, True, False]


@pytest.mark.parametrize(("n", "share"), [(0, 0.5), (3, -0.1), (3, 1.1)])
def test_a_budget_that_is_none_is_refused(n: int, share: float) -> None:
    with pytest.raises(ValueError, match="expected some, and 0 to 1"):
        tau_for_budget(np.zeros(n, np.float32), share)


def test_a_cost_weight_escalates_when_that_gains_more_than_it_costs() -> None:
    strong, cost, weight = np.array([0.9, 0.9, 0.6]), np.array([0.002, 0.004, 0.002]), 100.0
    tau = tau_for_cost(strong, cost, weight)
    np.testing.assert_allclose(tau, [0.7, 0.5, 0.4], atol=1e-6)
    cheap = np.array([0.6, 0.6, 0.6], np.float32)
    gains = strong - weight * cost > cheap
    assert accepts(cheap, tau).tolist() == (~gains).tolist() == [False, True, True]
    assert float(tau_for_cost(0.8, 0.001, 100.0)) == pytest.approx(0.7)


def test_terms_of_a_reply_by_hand() -> None:
    found = reply_terms(np.array([0.5]), np.array([0.75]), np.array([math.e - 1]))
    np.testing.assert_allclose(found, [[0.5, 0.75, 1, 0.25, 0.375, 0.5, 0.5625, 0.75, 1]])


def test_the_gain_after_a_reply_is_the_polynomial_and_before_it_the_difference() -> None:
    gain = ReplyGain(weak="a", strong="b", kind="stack", weights=(1, 2, 4, 0, 8, 0, 0, 0, 0), bias=-0.5)
    weak, strong, tokens = np.array([0.5, 0.5]), np.array([0.25, 1.0]), np.array([math.e - 1, np.nan])
    found = gain.predict(weak, strong, tokens)
    np.testing.assert_allclose(found, [0.5 + 0.5 + 4 + 8 * 0.125 - 0.5, 0.5])


def test_a_gain_has_a_weight_for_every_term() -> None:
    with pytest.raises(ValidationError, match="at least 9"):
        ReplyGain(weak="a", strong="b", kind="stack", weights=(1.0, 2.0), bias=0.0)
