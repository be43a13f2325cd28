"""A cascade: the cheap expert answers first, and what its reply shows decides whether the strong one is asked. Pure.

After Mowst (ICLR 2024) and cascade routing (arXiv 2410.10347). `ReplyGain` goes by the length of the reply, which many
outcome tables hold: `coe eval routing` reports what it would win of two experts. `Gate` goes by log-probabilities; no
outcome data with those exists here, so it is tested by simulation only (`benchmarks/cascade.py`). The gateway uses
neither.

Shapes: t tokens of an answer, j likeliest tokens at each place, n queries, f features, b knots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from router.artifact import require_finite
from router.errors import ArtifactError
from router.protocols import ArrayState
from router.types import FloatArray

Float64Array = NDArray[np.float64]

FEATURES = ("mean_logprob", "mean_margin", "mean_entropy", "log_length", "prior_logit")

REPLY_TERMS = 9
"""Terms up to the second degree of three numbers, without the constant."""


class ReplyGain(BaseModel):
    """Expected score of the `strong` expert minus the `weak` one's, once the weak one has replied (ours).

    A polynomial of second degree in what a scorer of this `kind` predicts of both and in log(1 + tokens of the reply):
    experts that fail tend to go on and on, or to stop short.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weak: str
    strong: str
    kind: str
    weights: tuple[float, ...] = Field(min_length=REPLY_TERMS, max_length=REPLY_TERMS)
    bias: float

    def predict(self, weak_quality: Float64Array, strong_quality: Float64Array, tokens: Float64Array) -> Float64Array:
        """(n,) gains from predicted qualities (n,) in [0, 1] and the lengths (n,) of the weak expert's replies; where
        a length is unknown (NaN), the difference that was predicted before the reply."""
        terms = reply_terms(weak_quality, strong_quality, np.nan_to_num(tokens))
        after = terms @ np.array(self.weights) + self.bias
        return np.where(np.isnan(tokens), strong_quality - weak_quality, after)


def reply_terms(weak_quality: Float64Array, strong_quality: Float64Array, tokens: Float64Array) -> Float64Array:
    """(n, 9): the three numbers, then their products, each pair once."""
    base = np.column_stack([weak_quality, strong_quality, np.log1p(tokens)]).astype(np.float64)
    first, second = np.triu_indices(base.shape[1])
    return np.column_stack([base, base[:, first] * base[:, second]])


def answer_features(chosen: FloatArray, top: FloatArray, prior: float) -> FloatArray:
    """What the gate sees of one answer (f,), in the order of FEATURES.

    Args:
        chosen: (t,) log-probabilities of the tokens of the answer, in nats, as an OpenAI `logprobs` block has them.
        top: (t, j) log-probabilities of the j >= 2 likeliest tokens at each place, in any order.
        prior: probability in [0, 1] that the cheap expert is right, predicted by the router before it answered.

    Returns:
        Mean log-probability; mean log-odds of the likeliest over the second; mean entropy in nats, where all but the j
        likeliest count as one outcome, so it is a lower bound; log(1 + t); log-odds of the prior, kept finite.

    Raises:
        ValueError: an answer without tokens, j < 2, or shapes that do not fit. Escalate such an answer.
    """
    if len(chosen) == 0 or top.ndim != 2 or top.shape[1] < 2 or len(top) != len(chosen):
        raise ValueError(
            f"chosen has shape {chosen.shape} and top {top.shape}; expected (t,) and (t, j), t >= 1, j >= 2"
        )
    ordered = np.sort(top.astype(np.float64), axis=1)
    probs = np.exp(ordered)
    outcomes = np.column_stack([probs, np.maximum(1.0 - probs.sum(axis=1), 0.0)])
    entropy = -(outcomes * np.log(np.maximum(outcomes, 1e-12))).sum(axis=1)
    believed = min(max(prior, 1e-3), 1.0 - 1e-3)
    values = (
        float(chosen.mean()),
        float((ordered[:, -1] - ordered[:, -2]).mean()),
        float(entropy.mean()),
        math.log1p(len(chosen)),
        math.log(believed / (1.0 - believed)),
    )
    return np.array(values, dtype=np.float32)


@dataclass(frozen=True)
class Gate:
    """P(the cheap answer is right) = g(sigmoid(x . weights + bias)), with g linear between `knots` and `levels`.

    `weights` (f,) and `bias` hold the logistic regression, the scale of the features and Platt's calibration (Platt
    1999); `knots` (b,) and `levels` (b,), both ascending, hold isotonic calibration (Zadrozny & Elkan 2002), or 0 and 1
    where there was too little data for it.
    """

    weights: FloatArray
    bias: float
    knots: FloatArray
    levels: FloatArray

    @classmethod
    def from_state(cls, state: ArrayState) -> Gate:
        """From arrays as `training.cascade.fit_gate` returns them. Raises ArtifactError."""
        knots = require_finite(state, "knots", (None,))
        levels = require_finite(state, "levels", knots.shape)
        if len(knots) == 0 or (np.diff(knots) < 0).any() or (np.diff(levels) < 0).any():
            raise ArtifactError(f"a gate needs ascending knots and levels; there are {len(knots)}")
        if levels[0] < 0 or levels[-1] > 1:
            raise ArtifactError(f"levels of a gate lie in [0, 1]; found {levels[0]:g} to {levels[-1]:g}")
        weights = require_finite(state, "weights", (len(FEATURES),))
        return cls(weights, float(require_finite(state, "bias", (1,))[0]), knots, levels)

    def prob_correct(self, features: FloatArray) -> FloatArray:
        """(n,) for features (n, f)."""
        raw = 0.5 * (1.0 + np.tanh(0.5 * (features @ self.weights + self.bias)))
        return np.asarray(np.interp(raw, self.knots, self.levels), dtype=np.float32)


def accepts(prob_correct: FloatArray, tau: ArrayLike) -> NDArray[np.bool_]:
    """(n,) True where the cheap answer is kept: P(correct) >= tau. `tau` is one number or (n,)."""
    return np.asarray(prob_correct >= np.asarray(tau))


def tau_for_budget(prob_correct: FloatArray, escalated_share: float) -> float:
    """The largest tau that escalates at most this share of queries like these (n,); infinity for a share of 1.

    Needs no labels, only a sample of traffic. Raises ValueError without a sample, or when the share is not in [0, 1].
    """
    if len(prob_correct) == 0 or not 0 <= escalated_share <= 1:
        raise ValueError(f"{len(prob_correct)} queries and a share of {escalated_share:g}; expected some, and 0 to 1")
    n_escalated = math.floor(escalated_share * len(prob_correct) + 1e-9)
    return float(np.sort(prob_correct)[n_escalated]) if n_escalated < len(prob_correct) else math.inf


def tau_for_cost(strong_quality: ArrayLike, strong_cost_usd: ArrayLike, cost_weight: float) -> FloatArray:
    """tau = quality of the strong expert - cost_weight * its cost: escalate when that gains more than it costs.

    The cheap answer is paid for either way, so its cost is not in the rule. `strong_quality` and `strong_cost_usd` are
    one number or (n,); `cost_weight` is in score per USD. Has the shape of its arguments.
    """
    return np.asarray(np.asarray(strong_quality) - cost_weight * np.asarray(strong_cost_usd), dtype=np.float32)
