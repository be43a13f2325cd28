"""One order of experts under a policy: next best, failover, runner-up and exploration never leave it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coe.base.errors import InfeasibleBudgetError, NoEligibleExpertError
from coe.router.config.policy import Budgets
from coe.router.policy.hosting import Memory, kept_in_memory
from coe.router.policy.map_solver import ExpertCosts, solve_map
from coe.router.policy.preference import LearnedChoice, Preference, solve_preference
from coe.router.policy.solved_policy import SolvedPolicy, action_distribution
from coe.router.types import DecisionReason
from tests.router.exploring import explored

K, M = 3, 4
BUDGETS = ("active_params_b", "cost_usd", "latency_ms")


def random_costs(rng: np.random.Generator) -> ExpertCosts:
    sizes = rng.uniform(1, 20, M).astype(np.float32)
    group = np.array([0, 0, 1, 2])
    return ExpertCosts(
        own_params_b=rng.uniform(0, 2, M).astype(np.float32),
        group=group,
        group_params_b=sizes[[0, 2, 3]],
        active_params_b=sizes,
        cost_usd=rng.uniform(0, 0.1, (K, M)).astype(np.float32),
        latency_ms=rng.uniform(10, 900, (K, M)).astype(np.float32),
    )


def size_of(costs: ExpertCosts, experts: list[int]) -> float:
    bases = np.unique(costs.group[experts])
    return float(costs.own_params_b[experts].sum() + costs.group_params_b[bases].sum())


def random_budgets(rng: np.random.Generator) -> Budgets:
    drawn = {"active_params_b": 12.0, "cost_usd": 0.06, "latency_ms": 500.0, "hosted_params_b": 30.0}
    return Budgets(**{name: float(top * rng.uniform(0.3, 1.2)) for name, top in drawn.items() if rng.random() < 0.6})


@st.composite
def policies(draw: st.DrawFn) -> tuple[SolvedPolicy, ExpertCosts, Budgets, np.random.Generator]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    costs, budgets, mass = random_costs(rng), random_budgets(rng), rng.dirichlet(np.ones(K)).astype(np.float32)
    pins = {int(row): int(rng.integers(M)) for row in range(K) if rng.random() < 0.2}
    try:
        solution = solve_map(rng.random((K, M)).astype(np.float32), mass, costs, budgets, pins)
        preference = None
        if len(budgets.averages) < 2 and draw(st.booleans()):
            choice = LearnedChoice(rng.random((12, M)).astype(np.float32), 0.05, rng.choice(K, 12, p=mass / mass.sum()))
            preference = solve_preference(choice, solution.expert_of, mass, costs, budgets, pins)
    except InfeasibleBudgetError:
        assume(False)
        raise AssertionError from None
    share = draw(st.sampled_from([0.0, 0.3, 0.9]))
    return SolvedPolicy(solution, pins, explored(share, K, M), preference), costs, budgets, rng


@settings(max_examples=25)
@given(policies(), st.sets(st.integers(0, M - 1), min_size=1))
def test_whoever_is_not_planned_keeps_every_limit_by_itself(drawn, alive) -> None:
    policy, costs, budgets, rng = drawn
    limits = {name: value for name, value in budgets.model_dump().items() if value is not None}
    quality, everybody = rng.random(M).astype(np.float32), set()
    for row in range(K):
        planned, _ = policy.planned(row, quality)
        order = policy.order(row, quality)
        everybody |= set(order)
        assert order[0] == planned
        for name, expert in itertools.product(BUDGETS, order[1:]):
            amount = np.broadcast_to(costs.per_query()[name], (K, M))[row, expert]
            assert amount <= limits.get(name, np.inf) * (1 + 1e-5)
        eligible = sorted(alive)
        if not alive & set(order):
            with pytest.raises(NoEligibleExpertError):
                action_distribution(policy, row, eligible, quality)
            continue
        odds = action_distribution(policy, row, eligible, quality)
        found = odds.draw(rng)
        assert odds.ranking == tuple(e for e in order if e in alive)
        assert sum(odds.probs) == pytest.approx(1)
        assert {e for e, prob in zip(eligible, odds.probs, strict=True) if prob > 0} <= set(odds.ranking)
        assert (found.expert == odds.ranking[0]) or found.reason is DecisionReason.EXPLORED
        if row in policy.pins:
            assert planned == policy.pins[row]
            assert planned not in alive or (found.expert, found.reason) == (planned, DecisionReason.PINNED)
    if "hosted_params_b" in limits:
        assert size_of(costs, sorted(everybody)) <= limits["hosted_params_b"] * (1 + 1e-5)


@settings(max_examples=25)
@given(policies())
def test_what_pins_cost_counts_against_the_budgets(drawn) -> None:
    policy, _, budgets, _ = drawn
    assert all(policy.solution.expert_of[row] == expert for row, expert in policy.pins.items())
    for name, limit in budgets.model_dump().items():
        assert limit is None or policy.solution.used[name] <= limit * (1 + 1e-4)


@settings(max_examples=20)
@given(policies())
def test_a_draw_has_the_probability_that_is_told(drawn) -> None:
    policy, *_, rng = drawn
    quality = rng.random(M).astype(np.float32)
    for row in range(K):
        odds = action_distribution(policy, row, [0, 1, 2, 3], quality)
        share = np.bincount([odds.draw(rng).expert for _ in range(400)], minlength=M) / 400
        assert share == pytest.approx(np.array(odds.probs), abs=0.12)  # beyond 4 standard errors


def one_row(cost: list[float], quality: list[float], limit: float, **more) -> SolvedPolicy:
    m = len(cost)
    zeros = np.zeros(m, np.float32)
    costs = ExpertCosts(
        zeros,
        np.arange(m),
        zeros,
        np.asarray(more.get("active", zeros), np.float32),
        np.array([cost], np.float32),
        np.zeros((1, m), np.float32),
    )
    return SolvedPolicy(
        solve_map(np.array([quality], np.float32), np.ones(1, np.float32), costs, Budgets(cost_usd=limit)),
        exploration=explored(more.get("share", 0.0), 1, m),
    )


def test_with_the_maps_expert_down_the_dear_one_does_not_serve_under_a_cost_limit() -> None:
    quality = np.array([0.6, 0.5, 0.9], np.float32)
    policy = one_row([1e-4, 2e-4, 1e-1], quality.tolist(), 0.002)
    assert policy.order(0, quality) == [0, 1]
    assert action_distribution(policy, 0, [1, 2], quality).wanted == 1
    with pytest.raises(NoEligibleExpertError, match=r"takes 0\.1 USD; the policy allows cost_usd=0\.002"):
        action_distribution(policy, 0, [2], quality)


def test_exploration_stays_among_those_that_keep_the_limit() -> None:
    quality, rng = np.array([0.6, 0.5, 0.9], np.float32), np.random.default_rng(0)
    policy = one_row([1e-4, 2e-4, 1e-1], quality.tolist(), 0.002, share=0.5)
    odds = action_distribution(policy, 0, [0, 1, 2], quality)
    assert {odds.draw(rng).expert for _ in range(300)} == {0, 1}
    assert odds.probs[2] == 0


def test_stand_ins_pay_the_price_of_a_scarce_budget() -> None:
    """Half of the traffic may go to the dear expert; of two others of like quality the cheaper one is next."""
    zeros = np.zeros(4, np.float32)
    cost = np.tile(np.array([0.0, 2.0, 0.9, 0.1], np.float32), (2, 1))
    quality = np.array([[0.1, 0.9, 0.52, 0.5], [0.1, 0.8, 0.52, 0.5]], np.float32)
    costs = ExpertCosts(zeros, np.arange(4), zeros, zeros, cost, np.zeros((2, 4), np.float32))
    solution = solve_map(quality, np.array([0.5, 0.5], np.float32), costs, Budgets(cost_usd=1.05))
    assert solution.expert_of.tolist() == [1, 3]
    price = solution.fallbacks.tolls[0, 1] / 2.0
    assert price == pytest.approx(0.3 / 1.9, rel=1e-4)  # what the dear expert adds on the second row, for what it costs
    assert SolvedPolicy(solution).order(0, quality[0]) == [1, 3, 2, 0]


def test_in_the_room_that_a_plan_leaves_the_better_expert_is_kept() -> None:
    core = np.array([True, False, False, False])
    own, group, bases = np.array([0.0, 1.0, 1.0, 4.0]), np.array([0, 1, 1, 2]), np.array([5.0, 2.0, 0.0])
    quality = np.array([0.5, 0.2, 0.3, 0.1])
    assert kept_in_memory(core, quality, Memory(own, group, bases), 8.0).tolist() == [True, False, True, False]
    assert kept_in_memory(core, quality, Memory(own, group, bases), 9.0).tolist() == [True, True, True, False]
    assert kept_in_memory(core, quality, Memory(own, group, bases), 5.0).tolist() == core.tolist()


def test_only_hosted_experts_are_explored_and_stand_in() -> None:
    quality, rng = np.array([0.1, 0.5, 0.9, 0.95], np.float32), np.random.default_rng(0)
    preference = Preference(np.zeros(4), np.array([False, False, True, True]))
    solution = solve_map(quality[None], np.ones(1, np.float32), random_free_costs(4), Budgets())
    policy = SolvedPolicy(solution, exploration=explored(0.5, 1, 4), preference=preference)
    odds = action_distribution(policy, 0, [0, 1, 2, 3], quality)
    assert {odds.draw(rng).expert for _ in range(300)} == {2, 3}
    assert action_distribution(policy, 0, [0, 1, 2], quality).wanted == 2
    with pytest.raises(NoEligibleExpertError, match="is not hosted under the policy"):
        action_distribution(policy, 0, [0, 1], quality)


def random_free_costs(m: int) -> ExpertCosts:
    zeros = np.zeros(m, np.float32)
    return ExpertCosts(zeros, np.arange(m), zeros, zeros, zeros[None], zeros[None])


def test_a_pin_beyond_a_budget_is_refused_with_what_would_do() -> None:
    zeros = np.zeros(2, np.float32)
    costs = ExpertCosts(
        zeros,
        np.arange(2),
        np.array([7, 70], np.float32),
        np.array([7, 70], np.float32),
        *[np.zeros((2, 2), np.float32)] * 2,
    )
    quality, half = np.array([[0.9, 0.1]] * 2, np.float32), np.array([0.5, 0.5], np.float32)
    with pytest.raises(InfeasibleBudgetError, match=r"smallest value that would do is 38\.5"):
        solve_map(quality, half, costs, Budgets(active_params_b=30), {1: 1})
    kept = solve_map(quality, half, costs, Budgets(active_params_b=40), {1: 1})
    assert kept.expert_of.tolist() == [0, 1]
    choice = LearnedChoice(np.array([[0.9, 0.1]] * 4, np.float32), 0.0, np.array([0, 0, 1, 1]))
    with pytest.raises(InfeasibleBudgetError, match=r"smallest value that would do is 38\.5"):
        solve_preference(choice, kept.expert_of, half, costs, Budgets(active_params_b=30), {1: 1})
    with pytest.raises(InfeasibleBudgetError, match="hosted_params_b=50"):
        solve_map(quality, half, costs, Budgets(hosted_params_b=50), {1: 1})


def test_a_map_leaves_room_for_the_pinned_expert() -> None:
    """The best expert is too slow alone and fits beside the pinned one or beside the fast one, not beside both."""
    sizes, nothing = np.array([10, 4, 6], np.float32), np.zeros((2, 3), np.float32)
    latency = np.array([[900, 100, 900], [100, 100, 100]], np.float32)
    costs = ExpertCosts(sizes, np.arange(3), np.zeros(3, np.float32), sizes, nothing, latency)
    quality, half = np.tile(np.array([0.9, 0.1, 0.2], np.float32), (4, 1)), np.array([0.5, 0.5], np.float32)
    choice, budgets = LearnedChoice(quality, 0.0, np.array([0, 0, 1, 1])), Budgets(hosted_params_b=16, latency_ms=400)
    solution = solve_map(quality[:2], half, costs, budgets, {1: 2})
    preference = solve_preference(choice, solution.expert_of, half, costs, budgets, {1: 2})
    assert preference.hosted.tolist() == [False, True, True]
