"""A cheap and a strong expert with known truth, and what each way to choose between them wins at equal cost.

A simulation: the outcome data of this project holds no log-probabilities. It shows when a cascade can win and that the
gate's arithmetic is right; it says nothing about how telling a real model's log-probabilities are.

Shapes: n queries, f features, t tokens. A cheap answer costs 1, a strong one `cost_ratio`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.cascade import Gate, accepts, answer_features, tau_for_budget
from router.types import FloatArray
from training.cascade import fit_gate

CHEAP = (0.5, -1.2)
STRONG = (2.0, -0.8)
"""Log-odds of a right answer: (first, second x difficulty seen in the query + second x difficulty not seen there)."""

MEAN_TOKENS = 30
TOP_TOKENS = 5


@dataclass(frozen=True)
class SimulatedQueries:
    """Right or wrong (n,) for both experts, features of the cheap answers (n, f), and the priors (n,): the exact
    probability of a right answer given what is seen in the query, so no router could do better before generation."""

    cheap_right: NDArray[np.bool_]
    strong_right: NDArray[np.bool_]
    cheap_prior: FloatArray
    strong_prior: FloatArray
    features: FloatArray


def simulate(rng: np.random.Generator, n: int, answer_auroc: float) -> SimulatedQueries:
    """Draws n queries.

    Args:
        answer_auroc: probability in [0.5, 1) that the confidence of a right cheap answer is above that of a wrong one.
    """
    from scipy.stats import norm

    seen, unseen = rng.standard_normal(n), rng.standard_normal(n)
    cheap_right = rng.random(n) < sigmoid(CHEAP[0] + CHEAP[1] * (seen + unseen))
    strong_right = rng.random(n) < sigmoid(STRONG[0] + STRONG[1] * (seen + unseen))
    cheap_prior = averaged_prior(CHEAP, seen)
    # Two normals of unit variance whose means are 2s apart: AUROC = Phi(2s / sqrt 2).
    shift = float(norm.ppf(answer_auroc)) / math.sqrt(2)
    confidence = rng.standard_normal(n) + np.where(cheap_right, shift, -shift)
    features = np.stack([draw_answer(rng, confidence[i], float(cheap_prior[i])) for i in range(n)])
    return SimulatedQueries(cheap_right, strong_right, cheap_prior, averaged_prior(STRONG, seen), features)


def sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def averaged_prior(expert: tuple[float, float], seen: NDArray[np.float64]) -> FloatArray:
    """P(right | seen) (n,): the mean over the unseen, standard normal difficulty by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(31)
    given_both = sigmoid(expert[0] + expert[1] * (seen[:, None] + nodes[None, :]))
    return np.asarray(given_both @ (weights / weights.sum()), dtype=np.float32)


def draw_answer(rng: np.random.Generator, confidence: float, prior: float) -> FloatArray:
    """Features (f,) of a greedy answer whose tokens are likelier the higher its confidence (standard units)."""
    n_tokens = 1 + int(rng.poisson(MEAN_TOKENS))
    first = sigmoid(2.0 + confidence + rng.standard_normal(n_tokens))
    others = rng.dirichlet(np.full(TOP_TOKENS, 0.5), size=n_tokens)[:, : TOP_TOKENS - 1]
    # A greedy token is the likeliest, so what is left to the others may not exceed it.
    first = np.maximum(first, 0.5)
    top = np.column_stack([first, (1.0 - first)[:, None] * others])
    logprobs = np.log(np.maximum(top, 1e-12)).astype(np.float32)
    return answer_features(logprobs[:, 0], logprobs, prior)


@dataclass(frozen=True)
class Arm:
    """One way to choose: its share of right answers, its mean cost, and which answers were right (n,)."""

    accuracy: float
    cost: float
    right: NDArray[np.bool_]


def compare(
    fitted_on: SimulatedQueries,
    tested_on: SimulatedQueries,
    *,
    escalated_share: float,
    cost_ratio: float,
    rng: np.random.Generator,
) -> dict[str, Arm]:
    """Arms by name. All but `always_cheap` and `always_strong` cost at most as much as a cascade that escalates this
    share: 1 + share x ratio, while a router that sends a share to the strong expert saves the cheap answer there.

    `random` sends queries to the strong expert by a coin; `router` those with the largest gap of the priors; `cascade`
    escalates the least P(correct); `cascade_by_gain` the largest gap of the strong prior over P(correct);
    `perfect_gate` wrong cheap answers that the strong expert would get right.
    """
    gate = Gate.from_state(fit_gate(fitted_on.features, fitted_on.cheap_right, rng))
    before, after = gate.prob_correct(fitted_on.features), gate.prob_correct(tested_on.features)
    sent_share = min(1.0, escalated_share * cost_ratio / (cost_ratio - 1.0))

    def escalated(fitted: FloatArray, tested: FloatArray, share: float) -> NDArray[np.bool_]:
        return ~accepts(tested, tau_for_budget(fitted, share))

    n = len(tested_on.cheap_right)
    gap_before = fitted_on.cheap_prior - fitted_on.strong_prior
    gap_after = tested_on.cheap_prior - tested_on.strong_prior
    gains = np.flatnonzero(~tested_on.cheap_right & tested_on.strong_right)[: math.floor(escalated_share * n)]
    generated_first = {
        "cascade": escalated(before, after, escalated_share),
        "cascade_by_gain": escalated(before - fitted_on.strong_prior, after - tested_on.strong_prior, escalated_share),
        "perfect_gate": np.isin(np.arange(n), gains),
    }
    chosen_first = {
        "always_cheap": np.zeros(n, dtype=bool),
        "always_strong": np.ones(n, dtype=bool),
        "random": rng.random(n) < sent_share,
        "router": escalated(gap_before, gap_after, sent_share),
    }
    arms = {
        name: arm(tested_on, strong, 1.0 + cost_ratio * strong.astype(np.float64))
        for name, strong in generated_first.items()
    }
    return arms | {
        name: arm(tested_on, strong, np.where(strong, cost_ratio, 1.0)) for name, strong in chosen_first.items()
    }


def arm(queries: SimulatedQueries, strong: NDArray[np.bool_], cost: NDArray[np.float64]) -> Arm:
    right = np.where(strong, queries.strong_right, queries.cheap_right)
    return Arm(float(right.mean()), float(cost.mean()), right)
