"""Learned ways to ask several experts, and the plans that are made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from coe.base.errors import ArtifactError, InfeasibleBudgetError
from coe.cli.progress import silent
from coe.router.build import MeasuredExperts, solved_policy
from coe.router.capabilities import Capabilities
from coe.router.config.policy import Budgets, PolicyConfig
from coe.router.policy.map_solver import ExpertCosts
from coe.router.policy.strategy_plan import Choices, StrategyPlan, choices_of, solve_plan
from coe.router.strategies.agree import Agree, Reply, StrategyName
from coe.router.strategies.learned import Ways, learned_ways, play
from coe.router.types import GENERAL, CategoryProbs, IntArray
from coe.training.expert_map import measure_quality
from coe.training.graded_queries import GradedQueries
from coe.training.strategies.strategy_fit import fit_strategies
from coe.training.types import OutcomeTable
from tests.training.strategies.known_answers import CATEGORIES, EXPERTS, known_table

TABLE = known_table(1200)
EVIDENCE = measure_quality(TABLE, CATEGORIES)
COSTS = ExpertCosts(
    own_params_b=np.ones(4, dtype=np.float32),
    group=np.arange(4),
    group_params_b=np.zeros(4, dtype=np.float32),
    active_params_b=np.array([1, 1, 2, 4], dtype=np.float32),
    cost_usd=np.ones((3, 4), dtype=np.float32),
    latency_ms=np.zeros((3, 4), dtype=np.float32),
)
EVERYBODY = np.ones(4, dtype=bool)
BY_MAP: IntArray = np.zeros(3, dtype=np.int64)


def learned(table: OutcomeTable) -> Ways | None:
    n = len(table.texts)
    embeddings = np.zeros((n, 1), dtype=np.float32)
    probs = np.eye(2, dtype=np.float32)[np.arange(n) % 2]
    queries = GradedQueries(table, embeddings, CategoryProbs(CATEGORIES, probs))
    return fit_strategies(queries, measure_quality(table, CATEGORIES), silent)


FITTED = learned(TABLE)


def test_a_table_is_played_as_the_strategy_does_one_query_at_a_time() -> None:
    way = Agree((0, 2), 3)
    played = play(TABLE.answers, way)
    for i, keys in enumerate(TABLE.answers[:200].tolist()):
        heard = {e: Reply(None if keys[e] < 0 else str(keys[e])) for e in way.probes}
        if way.needs_arbiter(heard):
            heard[3] = Reply(None if keys[3] < 0 else str(keys[3]))
        assert sorted(heard) == np.flatnonzero(played.asked[i]).tolist(), i
        served = way.settled(heard).expert
        assert played.served[i] == served, i


def test_two_experts_have_no_arbiter() -> None:
    pair = known_table(1200, columns=(0, 2))
    ways = learned_ways(load(save({name: np.ascontiguousarray(a) for name, a in learned(pair).arrays().items()})), 2, 2)
    assert len(ways.experts) == 0
    costs = replace(COSTS, cost_usd=COSTS.cost_usd[:, :2], active_params_b=COSTS.active_params_b[:2])
    evidence = measure_quality(pair, CATEGORIES)
    choices = choices_of(ways, evidence, replace(costs, latency_ms=costs.cost_usd), EVERYBODY[:2], {})
    assert (solve_plan(choices, BY_MAP, {"calls": 1.0}).choice_of < 2).all()


def test_without_comparable_answers_nothing_is_learned() -> None:
    assert learned(replace(TABLE, answers=None)) is None
    assert learned(replace(TABLE, answers=np.full_like(TABLE.answers, -2))) is None
    assert learned(TABLE.rows(range(20))) is None


def test_the_order_in_which_experts_are_listed_changes_nothing() -> None:
    order = [2, 0, 3, 1]
    other, expected = learned(known_table(1200, columns=order)), FITTED.among(order)
    for name, array in other.arrays().items():
        np.testing.assert_allclose(array, expected.arrays()[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_two_that_err_alike_are_no_probes_and_what_gains_serves() -> None:
    plan = solve_plan(choices_of(FITTED, EVIDENCE, COSTS, EVERYBODY, {}), BY_MAP, {})
    assert (plan.choice_of >= 4).all()
    assert plan.used["calls"] > 2
    assert plan.binding == ()
    assert all(set(FITTED.strategy(way - 4).probes) != {0, 1} for way in plan.choice_of.tolist())


def test_a_category_where_experts_know_nothing_more_together_stays_with_one() -> None:
    some = TABLE.rows(range(400))
    keys = np.tile(np.arange(4), (400, 1))  # nobody ever agrees, and all are right on the same prompts
    equal = replace(some, answers=keys, scores=np.repeat(some.scores[:, :1], 4, axis=1))
    choices = choices_of(learned(equal), measure_quality(equal, CATEGORIES), COSTS, EVERYBODY, {})
    assert solve_plan(choices, BY_MAP, {}).used["calls"] == pytest.approx(1.0)


def test_a_category_whose_answers_nobody_compared_stays_with_one() -> None:
    part, row = TABLE.rows(range(600)), np.arange(600)[:, None]
    ways = learned(replace(part, answers=np.where((row % 2 == 0) | (row < 10), part.answers, -2)))
    plan = solve_plan(choices_of(ways, EVIDENCE, COSTS, EVERYBODY, {}), BY_MAP, {})
    assert plan.choice_of[0] >= 4
    assert plan.choice_of[1] < 4


LIMITS = [("calls", 1.8), ("active_params_b", 3.0), ("cost_usd", 1.8), ("latency_ms", 180.0)]


@pytest.mark.parametrize(("limit", "most"), LIMITS)
def test_limits_bound_the_means_of_a_plan(limit: str, most: float) -> None:
    costs = replace(COSTS, latency_ms=np.full((3, 4), 100, dtype=np.float32))
    choices = choices_of(FITTED, EVIDENCE, costs, EVERYBODY, {})
    free = solve_plan(choices, BY_MAP, {})
    assert free.used[limit] > most
    plan = solve_plan(choices, BY_MAP, {limit: most})
    assert plan.used[limit] <= most * (1 + 1e-6)
    assert plan.binding == (limit,)


def two_ways(n_queries: float) -> Choices:
    """One category: an expert of size 1, one of 1.9, and the first with another of 2.2 for half of the queries."""
    spent, spread = np.array([[1.0, 1.9, 2.1]]), np.array([[0.0, 0.0, 1.1]])
    sizes = {"active_params_b": spent, "calls": np.ones((1, 3))}
    return Choices(np.array([[0.5, 0.6, 0.7]]), sizes, {**sizes, "active_params_b": spread}, np.ones(1), n_queries)


@pytest.mark.parametrize(("n_queries", "choice"), [(100.0, 1), (10_000.0, 2)])
def test_a_budget_is_kept_with_a_reserve_for_how_much_queries_differ(n_queries: float, choice: int) -> None:
    limits = {"active_params_b": 2.2}
    plan = solve_plan(two_ways(n_queries), np.zeros(1, dtype=np.int64), limits)
    assert plan.choice_of.tolist() == [choice]


def test_without_a_choice_that_leaves_a_reserve_the_limit_itself_is_kept() -> None:
    choices = two_ways(100.0)
    spent = {**choices.spent, "active_params_b": np.array([[5.0, 5.0, 2.1]])}
    plan = solve_plan(replace(choices, spent=spent), np.zeros(1, dtype=np.int64), {"active_params_b": 2.2})
    assert plan.choice_of.tolist() == [2]


def planned(policy: PolicyConfig, **costs: np.ndarray) -> StrategyPlan | None:
    experts = MeasuredExperts(EXPERTS, EVIDENCE, replace(COSTS, **costs), {name: Capabilities() for name in EXPERTS})
    return solved_policy(policy, (*CATEGORIES, GENERAL), experts, None, FITTED).plan


DEAR_AND_FAST = {
    "cost_usd": np.tile(np.array([1, 1, 1, 4], dtype=np.float32), (3, 1)),
    "latency_ms": np.tile(np.array([900, 900, 900, 100], dtype=np.float32), (3, 1)),
}


def test_limits_that_no_expert_keeps_are_an_error_that_names_one() -> None:
    """Each of both can be kept, but not beside the other."""
    for budgets in (Budgets(cost_usd=2.0), Budgets(latency_ms=200.0)):
        assert planned(PolicyConfig(strategy=StrategyName.AGREE, budgets=budgets), **DEAR_AND_FAST) is not None
    with pytest.raises(InfeasibleBudgetError, match=r"latency_ms|cost_usd"):
        planned(
            PolicyConfig(strategy=StrategyName.AGREE, budgets=Budgets(cost_usd=2.0, latency_ms=200.0)), **DEAR_AND_FAST
        )


@pytest.mark.parametrize(("limit", "most"), [("cost_usd", 1.0), ("latency_ms", 100.0)])
def test_limits_that_allow_no_second_call_leave_one_expert_and_are_named(limit: str, most: float) -> None:
    plan = planned(PolicyConfig(strategy=StrategyName.AGREE, budgets=Budgets(**{limit: most})), **DEAR_AND_FAST)
    assert (plan.choice_of < 4).all()
    assert plan.used["calls"] == 1
    assert plan.binding == (limit,)


def test_pins_and_experts_out_of_reach_are_kept() -> None:
    plan = solve_plan(choices_of(FITTED, EVIDENCE, COSTS, np.array([True, True, False, True]), {0: 1}), BY_MAP, {})
    assert plan.choice_of[0] == 1
    for choice in plan.choice_of[1:].tolist():
        assert choice < 4 or 2 not in FITTED.strategy(choice - 4).experts


def test_what_is_learned_survives_an_artifact_fewer_experts_and_a_newcomer() -> None:
    read = learned_ways(FITTED.arrays(), k=2, m=5)
    assert read.asks.shape[2] == 5
    assert read.strategy(0) == FITTED.strategy(0)
    asked = [experts for experts in FITTED.experts.tolist() if 1 not in experts]
    assert FITTED.among([0, 2, 3]).experts.tolist() == [[{0: 0, 2: 1, 3: 2}[e] for e in experts] for experts in asked]
    with pytest.raises(ArtifactError, match="'experts'"):
        learned_ways(FITTED.arrays() | {"experts": np.full(FITTED.experts.shape, 9)}, 2, 4)
