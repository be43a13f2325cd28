"""Exploration: shares that follow the value of information, within a budget."""

import math
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from coe.base.errors import ConfigError
from coe.router.build import MeasuredExperts, solved_policy
from coe.router.capabilities import Capabilities
from coe.router.config.composition import parse_config
from coe.router.config.policy import PolicyConfig
from coe.router.policy.exploration import (
    MOST_EXPLORED,
    MOST_OF_CHALLENGER,
    MOST_SAVED,
    Exploration,
    dearness,
    scale_within,
    value_of_knowing,
)
from coe.router.policy.map_solver import ExpertCosts
from coe.router.policy.preference import LearnedChoice
from coe.router.policy.solved_policy import SolvedPolicy, action_distribution
from coe.router.quality import QualityMatrix

ROWS = ("one", "two", "three", "general")
K, M = len(ROWS), 5


def measured(rng: np.random.Generator, *, is_paid: bool = False) -> MeasuredExperts:
    shape = (K, M)
    evidence = QualityMatrix(
        quality=rng.random(shape).astype(np.float32),
        stderr=(0.2 * rng.random(shape)).astype(np.float32),
        count=np.full(shape, 10, np.float32),
        mass=rng.dirichlet(np.ones(K)).astype(np.float32),
        prompt_tokens=np.ones(K, np.float32),
        output_tokens=np.ones(shape, np.float32),
        latency_ms=np.zeros(shape, np.float32),
    )
    zeros = np.zeros(M, np.float32)
    cost = (rng.random(shape) * is_paid).astype(np.float32)
    costs = ExpertCosts(zeros, np.arange(M), zeros, zeros, cost, np.zeros(shape, np.float32))
    names = tuple(f"e{i}" for i in range(M))
    return MeasuredExperts(names, evidence, costs, {name: Capabilities() for name in names})


def solved(
    experts: MeasuredExperts,
    exploration: float,
    choice: LearnedChoice | None = None,
    **more: object,
) -> SolvedPolicy:
    """A policy of that budget."""
    config = PolicyConfig.model_validate({"exploration": exploration, **more})
    return solved_policy(config, ROWS, experts, choice, None)


def probs_of(
    policy: SolvedPolicy, row: int, quality: np.ndarray, eligible: tuple[int, ...] = tuple(range(M))
) -> np.ndarray:
    odds = action_distribution(policy, row, eligible, quality)
    found = np.zeros(M)
    found[list(odds.eligible)] = odds.probs
    return found


@given(st.integers(0, 2**32), st.floats(1e-4, 0.2), st.booleans())
def test_shares_sum_to_one_and_what_others_than_challengers_cost_keeps_the_budget(
    seed: int, budget: float, is_paid: bool
) -> None:
    experts = measured(np.random.default_rng(seed), is_paid=is_paid)
    policy, q = solved(experts, budget), experts.evidence.quality.astype(np.float64)
    probs = np.stack([probs_of(policy, row, experts.evidence.quality[row]) for row in range(K)])
    best, explores = policy.solution.expert_of.copy(), policy.exploration
    assert probs.sum(axis=1) == pytest.approx(1, abs=1e-12)
    assert (probs >= -1e-12).all()
    for row, (expert, share) in explores.challengers.items():
        assert probs[row, expert] == share
        assert probs[row, policy.solution.expert_of[row]] >= (1 - share) / 2 - 1e-9
        best[row] = expert
    at = np.arange(K)
    assert (probs[at, best] >= 1 - MOST_EXPLORED - 1e-9).all()
    probs[at, policy.solution.expert_of] *= [row not in explores.challengers for row in range(K)]
    loss = np.maximum(q[at, best][:, None] - q, 0)
    mass = experts.evidence.mass / experts.evidence.mass.sum(dtype=np.float64)
    assert float(mass @ (probs * loss).sum(axis=1)) <= budget * (1 + 1e-9)


def ahead(lead: float, error: float, *, dear: float = 0.0, row: int = 0) -> tuple[int, float] | None:
    """The challenger of expert 0 where expert 1 is ahead, and expert 2 far behind."""
    quality, dearness_of = np.array([0.5, 0.5 + lead, 0.1]), np.array([[0.0, dear, 0.0]])
    explores = Exploration(np.full((1, 3), error / math.sqrt(2)), dearness_of)
    return explores.challenger(row, quality, 0, [1, 2])


def test_a_challenger_is_ahead_by_half_an_error_and_answers_its_chance_of_being_better() -> None:
    assert ahead(0.049, 0.1) is None
    assert ahead(0.051, 0.1) == (1, pytest.approx(norm.cdf(0.51)))
    assert ahead(0.5, 0.1) == (1, MOST_OF_CHALLENGER)
    assert ahead(0.06, 0.1, dear=0.02) is None  # its price is taken off
    assert ahead(-0.01, 0.015, dear=-1.0) == (1, pytest.approx(norm.cdf((MOST_SAVED - 0.01) / 0.015)))
    assert ahead(-0.03, 0.01, dear=-1.0) is None  # no saving pays for more


def test_others_beside_a_challenger_are_compared_with_it() -> None:
    quality, error = np.array([0.5, 0.7, 0.69]), np.full((1, 3), 0.05)
    named = Exploration(error, np.zeros((1, 3)), scale=math.inf, challengers={0: (1, 0.8)})
    shares = named.shares(0, quality, 0, [1, 2])
    assert shares.tolist() == pytest.approx([0.1, 0.8, 0.1])
    weight, loss = named.weighed(0, quality, 0, [1, 2])
    assert loss == pytest.approx([0.0, 0.0, 0.01])
    assert weight[[0, 1]].tolist() == [0.0, 0.0]
    assert named.shares(0, quality, 0, [2])[1] == 0.0  # the challenger may not serve


@given(st.integers(0, 2**32), st.sets(st.integers(0, M - 1), min_size=1))
def test_nobody_is_tried_more_often_because_somebody_is_down(seed: int, alive: set[int]) -> None:
    experts = measured(np.random.default_rng(seed))
    policy, quality = solved(experts, 0.01), experts.evidence.quality[0]
    planned = int(policy.solution.expert_of[0])
    everybody, some = probs_of(policy, 0, quality), probs_of(policy, 0, quality, tuple(sorted(alive)))
    assert some.sum() == pytest.approx(1)
    if planned not in alive:
        assert some.max() == 1.0  # a fallback serves, and nobody is tried in its place
    else:
        others = [e for e in alive if e != planned]
        assert some[others] == pytest.approx(everybody[others])


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.floats(1e-3, 0.05))
def test_a_score_per_query_keeps_the_budget_on_its_sample(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    experts = measured(rng)
    choice = LearnedChoice(rng.random((40, M)).astype(np.float32), 0.05, rng.integers(0, K, 40))
    policy = solved(experts, budget, choice)
    losses = []
    for row, quality in zip(choice.rows.tolist(), choice.sample, strict=True):
        probs = probs_of(policy, row, quality)
        losses.append(float(probs @ np.maximum(quality[policy.planned(row, quality)[0]] - quality, 0)))
    assert np.mean(losses) <= budget + 1e-6


def test_an_expert_within_its_error_is_tried_and_one_far_behind_is_not() -> None:
    explores = Exploration(np.full((1, 3), 0.05), np.zeros((1, 3)), scale=0.1)
    near, far = explores.shares(0, np.array([0.8, 0.76, 0.3]), 0, [1, 2])[1:]
    assert near > 0.01
    assert far < 1e-6


@given(st.integers(0, 2**32), st.floats(0.0, 1.0))
def test_nobody_is_tried_who_is_known_to_be_hopeless(seed: int, floor: float) -> None:
    rng = np.random.default_rng(seed)
    experts = measured(rng)
    evidence = experts.evidence
    with patch("coe.router.build.FLOOR", floor):
        policy = solved(experts, 0.5)
    known = evidence.quality.astype(np.float64)
    for row in range(K):
        probs = probs_of(policy, row, evidence.quality[row])
        planned = policy.expert_of(row)[0]
        is_hopeless = known[row] + evidence.stderr[row].astype(np.float64) < floor * known[row].max()
        if row == K - 1:
            mean, error = known.mean(axis=0), np.sqrt((evidence.stderr.astype(np.float64) ** 2).sum(axis=0)) / K
            is_hopeless |= mean + error < floor * mean.max()
        is_hopeless[planned] = False
        assert (probs[is_hopeless] == 0).all()
        assert probs.sum() == pytest.approx(1.0)
        found = action_distribution(policy, row, tuple(range(M)), evidence.quality[row])
        for _ in range(20):
            assert not is_hopeless[found.draw(rng).expert]


def test_an_expert_of_which_nothing_is_known_is_not_known_to_be_hopeless() -> None:
    quality, error = np.array([0.9, 0.0, 0.0]), np.array([[0.05, 0.5, 0.05]])
    found = Exploration(error, np.zeros((1, 3)), scale=0.2, floor=0.5)
    assert found.hopeful(0, quality, 0, [1, 2]) == [1]
    shares = found.shares(0, quality, 0, [1, 2])
    assert shares[1] > 0.0 == shares[2]
    assert replace(found, floor=0.0).shares(0, quality, 0, [1, 2])[2] > 0.0


def test_shares_have_their_reference_values() -> None:
    """By the formulas of the module, with the normal distribution of SciPy."""
    quality, error = np.array([0.7, 0.6, 0.65]), np.array([[0.05, 0.1, 0.02]])
    found = Exploration(error, np.array([[0.0, 0.0, 0.03]]), scale=0.2).shares(0, quality, 0, [1, 2])
    weights = []
    for d, loss, e in ((0.1, 0.1, 1), (0.05, 0.08, 2)):
        s = math.sqrt(0.05**2 + error[0, e] ** 2 + 0.03**2)
        value = s * norm.pdf(d / s) - d * norm.cdf(-d / s)
        weights.append(value / (loss + 0.01))
    assert found == pytest.approx([1 - 0.2 * sum(weights), 0.2 * weights[0], 0.2 * weights[1]], rel=1e-5)


@given(st.integers(0, 2**32), st.floats(1e-4, 0.5))
def test_the_scale_spends_the_whole_budget_where_it_can(seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    weight, loss = rng.exponential(size=(2, 6, 3)) * (rng.random((2, 6, 1)) < 0.8)
    mass, most = rng.dirichlet(np.ones(6)), rng.uniform(0.1, 0.9, 6)

    def spent(scale: float) -> float:
        total = np.maximum(weight.sum(axis=1), 1e-300)
        return float(mass @ ((weight * loss).sum(axis=1) * np.minimum(scale, most / total)))

    scale = scale_within(budget, weight, loss, mass, most)
    assert spent(scale) == pytest.approx(min(budget, spent(math.inf)))
    assert math.isinf(scale) == (spent(math.inf) <= budget)


def test_what_costs_money_is_dear_at_the_rate_of_the_gate_and_beside_a_free_plan_out_of_reach() -> None:
    cost = np.array([[0.0, 0.1], [0.2, 0.4]])
    assert dearness(cost, 0.4) == pytest.approx(np.array([[0.0, 0.05], [0.1, 0.2]]))
    assert (dearness(cost, 0.0) > 1e6).tolist() == [[False, True], [True, True]]


def test_all_that_decides_a_share_is_in_the_identity() -> None:
    one = {"stderr": np.ones((1, 2)), "dear": np.zeros((1, 2)), "scale": 0.1, "others": 0.5, "floor": 0.0}
    others = {
        "stderr": np.zeros((1, 2)),
        "dear": np.ones((1, 2)),
        "scale": 0.2,
        "others": 0.4,
        "quality": np.ones((1, 2)),
        "floor": 0.5,
        "challengers": {0: (1, 0.5)},
    }
    found = {Exploration(**{**one, name: value}).identity for name, value in others.items()}
    assert len(found | {Exploration(**one).identity}) == 8


@given(st.floats(-1, 1), st.floats(0.01, 0.5))
def test_the_value_of_knowing_is_the_mean_of_what_choosing_late_gains(worse: float, error: float) -> None:
    draws = norm.ppf((np.arange(4000) + 0.5) / 4000, loc=-worse, scale=error)
    assert value_of_knowing(worse, error) == pytest.approx(float(np.maximum(draws, 0).mean()), abs=2e-3 * error)


def test_pins_are_not_explored_away_from_and_off_is_off() -> None:
    experts = measured(np.random.default_rng(3))
    pinned = solved(experts, 0.05, pins={"two": "e1"})
    assert probs_of(pinned, 1, experts.evidence.quality[1]).tolist() == [0, 1, 0, 0, 0]
    assert solved(experts, 0.0).exploration is None
    assert solved(experts, 0.05, pins=dict.fromkeys(ROWS, "e1")).exploration is None


@pytest.mark.parametrize(("written", "budget"), [("off", 0.0), (False, 0.0), ("0.5%", 0.005), (0.005, 0.005)])
def test_a_budget_is_written_as_a_share_or_in_percent_or_off(written: object, budget: float) -> None:
    assert PolicyConfig.model_validate({"exploration": written}).exploration == pytest.approx(budget)


@pytest.mark.parametrize("written", ["half", 2, "-1%", {"budget": 0.1}])
def test_another_budget_is_refused_by_name(written: object) -> None:
    with pytest.raises(ConfigError, match="exploration"):
        parse_config({"policies": {"default": {"exploration": written}}})
