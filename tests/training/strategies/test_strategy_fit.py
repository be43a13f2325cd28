"""Learned strategies, and the plans that are made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load, save

from coe.base.errors import ArtifactError, InfeasibleBudgetError
from coe.cli.progress import silent
from coe.router.build import MeasuredExperts, solved_policy
from coe.router.capabilities import Capabilities
from coe.router.map_solver import ExpertCosts
from coe.router.policy_config import Budgets, PolicyConfig
from coe.router.strategies.learned import LEARNED, LearnedStrategies, learned_strategies
from coe.router.strategies.machines import SIGNALS
from coe.router.strategies.types import StrategyName
from coe.router.strategy_plan import Choices, StrategyPlan, choices_of, solve_plan
from coe.router.types import GENERAL, CategoryProbs
from coe.training.expert_map import measure_quality
from coe.training.graded_queries import GradedQueries
from coe.training.strategies.rehearsal import Known
from coe.training.strategies.strategy_fit import fit_strategies
from coe.training.strategies.vote_fit import Ballots
from coe.training.strategies.ways import WAYS, Company, Way
from tests.outcome_tables import scored_table
from tests.training.strategies.known_answers import ballots, known, numbered

CATEGORIES = ("a", "b")


def graded(data: Ballots, answers: np.ndarray | None) -> GradedQueries:
    n = len(data.keys)
    categories = [CATEGORIES[i % 2] for i in range(n)]
    table = scored_table(data.scores, categories, ("one", "twin", "two", "three"), answers=answers)
    probs = np.eye(2, dtype=np.float32)[np.arange(n) % 2]
    return GradedQueries(table, data.embeddings, CategoryProbs(CATEGORIES, probs))


def test_two_experts_have_no_arbiter_and_every_other_strategy() -> None:
    queries = graded(DATA, DATA.keys)
    pair = replace(
        queries.table,
        experts=("one", "two"),
        answers=numbered(DATA.keys[:, [0, 2]]),
        **{name: cells[:, [0, 2]] for name, cells in queries.table.matrices.items() if name != "answers"},
    )
    fitted = fit_strategies(
        replace(queries, table=pair), measure_quality(pair, CATEGORIES), np.random.default_rng(0), silent
    )
    read = learned_strategies(load(save(as_stored(fitted))), 2, 2)
    assert read.variants[StrategyName.AGREE].asked() == []
    assert all(read.variants[name].asked() for name in LEARNED if name is not StrategyName.AGREE)
    costs = replace(COSTS, cost_usd=COSTS.cost_usd[:, :2], active_params_b=COSTS.active_params_b[:2])
    choices = choices_of(
        read.variants[StrategyName.AGREE],
        measure_quality(pair, CATEGORIES),
        replace(costs, latency_ms=costs.cost_usd),
        np.ones(2, dtype=bool),
        {},
    )
    plan = solve_plan(StrategyName.AGREE, choices, np.zeros(3, dtype=np.int64), {"calls": 1.0})
    assert (plan.choice_of < 2).all()


def as_stored(fitted: LearnedStrategies) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array) for name, array in fitted.arrays().items()}


def learned(data: Ballots, answers: np.ndarray | None) -> LearnedStrategies | None:
    queries = graded(data, answers)
    return fit_strategies(queries, measure_quality(queries.table, CATEGORIES), np.random.default_rng(0), silent)


DATA = ballots(1200)
FITTED = learned(DATA, DATA.keys)
EVIDENCE = measure_quality(graded(DATA, DATA.keys).table, CATEGORIES)
COSTS = ExpertCosts(
    own_params_b=np.ones(4, dtype=np.float32),
    group=np.arange(4),
    group_params_b=np.zeros(4, dtype=np.float32),
    active_params_b=np.array([1, 1, 2, 4], dtype=np.float32),
    cost_usd=np.ones((3, 4), dtype=np.float32),
    latency_ms=np.zeros((3, 4), dtype=np.float32),
)
EVERYBODY = np.ones(4, dtype=bool)


def test_without_comparable_answers_nothing_is_learned() -> None:
    assert learned(DATA, None) is None
    assert learned(DATA, np.full_like(DATA.keys, -2)) is None
    few = DATA.take(np.arange(20))
    assert learned(few, few.keys) is None


def test_the_order_in_which_experts_are_listed_changes_nothing() -> None:
    order = [2, 0, 3, 1]
    queries = graded(DATA, DATA.keys)
    columns = {name: cells[:, order] for name, cells in queries.table.matrices.items() if name != "answers"}
    names = tuple(queries.table.experts[e] for e in order)
    table = replace(queries.table, experts=names, answers=numbered(DATA.keys[:, order]), **columns)
    other = fit_strategies(
        replace(queries, table=table), measure_quality(table, CATEGORIES), np.random.default_rng(0), silent
    )
    assert other is not None
    expected = FITTED.among(order).arrays()
    for name, array in other.arrays().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", LEARNED)
def test_a_strategy_that_gains_serves(name: StrategyName) -> None:
    choices = choices_of(FITTED.variants[name], EVIDENCE, COSTS, EVERYBODY, {})
    plan = solve_plan(name, choices, np.zeros(3, dtype=np.int64), {})
    if name is not StrategyName.ESCALATE:
        assert (plan.choice_of >= 4).all()
        assert plan.used["calls"] > 1
    assert plan.binding == ()


def test_a_category_where_experts_know_nothing_more_together_stays_with_one() -> None:
    some = DATA.take(np.arange(400))
    keys = np.tile(np.arange(4), (400, 1))  # nobody ever agrees, and all are right on the same prompts
    equal = replace(some, keys=keys, scores=np.repeat(some.scores[:, :1], 4, axis=1))
    fitted, evidence = learned(equal, keys), measure_quality(graded(equal, keys).table, CATEGORIES)
    for name in LEARNED:
        choices = choices_of(fitted.variants[name], evidence, COSTS, EVERYBODY, {})
        plan = solve_plan(name, choices, np.zeros(3, dtype=np.int64), {})
        assert plan.used["calls"] == pytest.approx(1.0)


def test_a_category_whose_answers_nobody_compared_stays_with_one() -> None:
    part = DATA.take(np.arange(600))
    is_a = np.arange(600)[:, None] % 2 == 0
    fitted = learned(part, np.where(is_a | (np.arange(600)[:, None] < 10), part.keys, -2))
    choices = choices_of(fitted.variants[StrategyName.VOTE], EVIDENCE, COSTS, EVERYBODY, {})
    plan = solve_plan(StrategyName.VOTE, choices, np.zeros(3, dtype=np.int64), {})
    assert plan.choice_of[0] >= 4
    assert plan.choice_of[1] < 4


LIMITS = [("calls", 1.5), ("active_params_b", 2.0), ("cost_usd", 2.2), ("latency_ms", 150.0)]


@pytest.mark.parametrize(("limit", "most"), LIMITS)
def test_limits_bound_the_means_of_a_plan(limit: str, most: float) -> None:
    costs = replace(COSTS, latency_ms=np.full((3, 4), 100, dtype=np.float32))
    choices = choices_of(FITTED.variants[StrategyName.SEQUENTIAL], EVIDENCE, costs, EVERYBODY, {})
    free = solve_plan(StrategyName.SEQUENTIAL, choices, np.zeros(3, dtype=np.int64), {})
    assert free.used[limit] > most
    plan = solve_plan(StrategyName.SEQUENTIAL, choices, np.zeros(3, dtype=np.int64), {limit: most})
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
    plan = solve_plan(StrategyName.ESCALATE, two_ways(n_queries), np.zeros(1, dtype=np.int64), limits)
    assert plan.choice_of.tolist() == [choice]


def test_without_a_choice_that_leaves_a_reserve_the_limit_itself_is_kept() -> None:
    choices = two_ways(100.0)
    spent = {**choices.spent, "active_params_b": np.array([[5.0, 5.0, 2.1]])}
    plan = solve_plan(
        StrategyName.ESCALATE, replace(choices, spent=spent), np.zeros(1, dtype=np.int64), {"active_params_b": 2.2}
    )
    assert plan.choice_of.tolist() == [2]


def planned(policy: PolicyConfig, **costs: np.ndarray) -> StrategyPlan | None:
    names = ("one", "twin", "two", "three")
    experts = MeasuredExperts(names, EVIDENCE, replace(COSTS, **costs), {name: Capabilities() for name in names})
    return solved_policy(policy, (*CATEGORIES, GENERAL), experts, None, FITTED).plan


DEAR_AND_FAST = {
    "cost_usd": np.tile(np.array([1, 1, 1, 4], dtype=np.float32), (3, 1)),
    "latency_ms": np.tile(np.array([900, 900, 900, 100], dtype=np.float32), (3, 1)),
}


@pytest.mark.parametrize("name", LEARNED)
def test_limits_that_no_expert_keeps_are_an_error_that_names_one(name: StrategyName) -> None:
    """Each of both can be kept, but not beside the other."""
    for budgets in (Budgets(cost_usd=2.0), Budgets(latency_ms=200.0)):
        assert planned(PolicyConfig(strategy=name, budgets=budgets), **DEAR_AND_FAST) is not None
    with pytest.raises(InfeasibleBudgetError, match=r"latency_ms|cost_usd"):
        planned(PolicyConfig(strategy=name, budgets=Budgets(cost_usd=2.0, latency_ms=200.0)), **DEAR_AND_FAST)


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize(("limit", "most"), [("cost_usd", 1.0), ("latency_ms", 100.0)])
def test_limits_that_allow_no_second_call_leave_one_expert_and_are_named(
    name: StrategyName, limit: str, most: float
) -> None:
    plan = planned(PolicyConfig(strategy=name, budgets=Budgets(**{limit: most})), **DEAR_AND_FAST)
    assert (plan.choice_of < 4).all()
    assert plan.used["calls"] == 1
    assert plan.binding == (limit,)


def test_pins_and_experts_out_of_reach_are_kept() -> None:
    choices = choices_of(
        FITTED.variants[StrategyName.VOTE], EVIDENCE, COSTS, np.array([True, True, False, True]), {0: 1}
    )
    plan = solve_plan(StrategyName.VOTE, choices, np.zeros(3, dtype=np.int64), {})
    assert plan.choice_of[0] == 1
    own = FITTED.variants[StrategyName.VOTE]
    for choice in plan.choice_of[1:].tolist():
        assert choice < 4 or 2 not in own.asked_by(choice - 4)


def test_what_is_learned_survives_an_artifact_fewer_experts_and_a_newcomer() -> None:
    own = FITTED
    read = learned_strategies(own.arrays(), k=2, m=5)
    assert read.weights.shape[1] == 6
    vector = DATA.embeddings[0]
    assert read.votes(vector).weights == pytest.approx((*own.votes(vector).weights, 0.0), abs=1e-5)
    for name in LEARNED:
        assert read.strategy(name, 0, vector) == read.strategy(name, 0, vector[None])
        assert read.variants[name].asks.shape[2] == 5
    fewer = own.among([0, 2, 3])
    assert fewer.votes(vector).weights == pytest.approx([own.votes(vector).weights[e] for e in (0, 2, 3)], abs=1e-5)
    for name in LEARNED:
        asked = [experts for experts in own.variants[name].asked() if 1 not in experts]
        renumbered = [tuple({0: 0, 2: 1, 3: 2}[e] for e in experts) for experts in asked]
        assert fewer.variants[name].asked() == renumbered
    assert learned_strategies({}, 2, 4) is None
    broken = own.arrays() | {"vote.experts": np.full((1, 2), 9)}
    with pytest.raises(ArtifactError, match=r"vote\.experts"):
        learned_strategies(broken, 2, 4)


def test_a_gate_that_sees_log_probabilities_gains_more() -> None:
    plain = known(600, seed=4)
    sure = np.where(plain.scores > 0, -0.1, -2.0) + np.random.default_rng(9).normal(scale=0.3, size=plain.scores.shape)
    folds, company = np.arange(600) % 5, Company((0, 3), np.ones(4))

    def worth(way: Way) -> float:
        return float(way.played.score.mean() - 0.05 * way.played.asked.sum(axis=1).mean())

    def best(data: Known) -> Way:
        return max(WAYS[StrategyName.ESCALATE](data, folds, company, data), key=worth)

    blind, seeing = best(plain), best(replace(plain, logprobs=sure))
    assert worth(seeing) > worth(blind) + 0.1
    assert not blind.rules[:, SIGNALS:].any()
    assert seeing.rules[0, SIGNALS] < 0  # the surer the reply, the less is gained by asking on
