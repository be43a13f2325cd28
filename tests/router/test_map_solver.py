"""The map: brute force over all maps is the reference for the mixed-integer program."""

import itertools
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.base.errors import InfeasibleBudgetError
from coe.router.config.policy import Budgets
from coe.router.policy.map_solver import ExpertCosts, frontier, solve_map

K, M = 3, 4
shares = st.floats(0, 1, width=32).map(lambda x: round(x, 3))


def costs_of(active, *, group=None, own=None, group_size=None, cost=None) -> ExpertCosts:
    active = np.asarray(active, dtype=np.float32)
    m = len(active)
    return ExpertCosts(
        own_params_b=np.zeros(m, np.float32) if own is None else np.asarray(own, np.float32),
        group=np.arange(m) if group is None else np.asarray(group),
        group_params_b=active if group_size is None else np.asarray(group_size, np.float32),
        active_params_b=active,
        cost_usd=np.zeros((K, m), np.float32) if cost is None else np.broadcast_to(np.float32(cost), (K, m)),
        latency_ms=np.zeros((K, m), np.float32),
    )


def brute_force(quality, mass, costs, *, active=np.inf, hosted=np.inf):
    best = -np.inf
    for choice in itertools.product(range(quality.shape[1]), repeat=quality.shape[0]):
        index = np.array(choice)
        used_active = (mass * costs.active_params_b[index]).sum()
        used_hosted = (
            costs.own_params_b[list(set(choice))].sum()
            + costs.group_params_b[list(set(costs.group[index].tolist()))].sum()
        )
        if used_active <= active * (1 + 1e-6) and used_hosted <= hosted * (1 + 1e-6):
            best = max(best, float((mass * quality[np.arange(len(index)), index]).sum()))
    return best


@settings(max_examples=40)
@given(
    quality=arrays(np.float32, (K, M), elements=shares),
    mass=arrays(np.float32, (K,), elements=st.floats(0.125, 1, width=32)),
    sizes=arrays(np.float32, (M,), elements=st.integers(1, 20).map(float)),
    active=st.integers(1, 25),
    hosted=st.integers(1, 60),
)
def test_the_program_finds_what_brute_force_finds(quality, mass, sizes, active, hosted):
    costs = costs_of(sizes, group=[0, 0, 1, 2], group_size=[sizes[0], sizes[2], sizes[3]])
    mass = mass / mass.sum()
    expected = brute_force(quality, mass, costs, active=active, hosted=hosted)
    budgets = Budgets(active_params_b=active, hosted_params_b=hosted)
    if expected == -np.inf:
        with pytest.raises(InfeasibleBudgetError):
            solve_map(quality, mass, costs, budgets)
        return
    found = solve_map(quality, mass, costs, budgets)
    assert found.quality == pytest.approx(expected, abs=1e-4)
    assert found.used["active_params_b"] <= active + 1e-4
    assert found.used["hosted_params_b"] <= hosted + 1e-4


@given(arrays(np.int8, (3, 7), elements=st.integers(0, 3)))
def test_what_is_left_of_dominated_experts_is_what_nobody_equals_or_beats(amounts):
    kept = frontier(amounts.astype(np.float64))
    left = {tuple(column) for column in amounts[:, kept].T}
    assert len(left) == len(kept)
    others = {tuple(column) for column in amounts.T}
    assert left == {c for c in others if not any(o != c and all(np.array(o) <= c) for o in others)}


@settings(max_examples=30)
@given(quality=arrays(np.float32, (K, M), elements=shares))
def test_without_a_binding_budget_the_solver_agrees_with_the_plain_maximum(quality):
    costs, mass = costs_of([1, 2, 3, 4]), np.full(K, 1 / K, np.float32)
    plain = solve_map(quality, mass, costs, Budgets())
    solved = solve_map(quality, mass, costs, Budgets(active_params_b=100))
    assert plain.quality == pytest.approx(float(quality.max(axis=1).mean()), abs=1e-5)
    assert solved.quality == pytest.approx(plain.quality, abs=1e-5)
    assert solved.binding == ()


def test_a_shared_base_is_hosted_once():
    quality = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]], np.float32)
    costs = costs_of([7, 7], group=[0, 0], group_size=[7], own=[0.1, 0.1])
    found = solve_map(quality, np.ones(3, np.float32), costs, Budgets(hosted_params_b=7.3))
    assert list(found.expert_of[:2]) == [0, 1]
    assert found.used["hosted_params_b"] == pytest.approx(7.2, abs=1e-5)


def test_of_equal_experts_the_smaller_serves():
    found = solve_map(np.full((K, 2), 0.5, np.float32), np.ones(K, np.float32), costs_of([9, 2]), Budgets())
    assert list(found.expert_of) == [1, 1, 1]


def test_infeasible_budget_names_itself_and_the_smallest_that_would_do():
    quality = np.full((K, 2), 0.5, np.float32)
    with pytest.raises(InfeasibleBudgetError) as caught:
        solve_map(quality, np.ones(K, np.float32), costs_of([8, 2]), Budgets(active_params_b=1.5, hosted_params_b=50))
    assert (caught.value.budget, caught.value.smallest) == ("active_params_b", pytest.approx(2.0))
    assert "smallest value that would do is 2" in str(caught.value)


def test_the_smallest_that_would_do_is_told_of_costs_far_below_a_cent_too():
    """The cheapest for the first category is too slow there; the next differs by a ten-millionth of a USD."""
    cost = np.array([[1e-7, 9e-7, 5e-7], [4e-7, 8e-7, 6e-7], [7e-7, 2e-7, 3e-7]], np.float32)
    costs = replace(
        costs_of([1, 2, 3]), cost_usd=cost, latency_ms=np.float32([[900, 50, 20], [20, 20, 20], [20, 20, 20]])
    )
    with pytest.raises(InfeasibleBudgetError) as caught:
        solve_map(np.full((K, 3), 0.5, np.float32), np.ones(K), costs, Budgets(cost_usd=1e-7, latency_ms=30))
    assert caught.value.budget == "cost_usd"
    assert caught.value.smallest == pytest.approx((5e-7 + 4e-7 + 2e-7) / 3, rel=1e-3)


def test_a_budget_of_nothing_admits_only_what_is_free():
    cost = np.tile(np.float32([5e-7, 0]), (K, 1))
    costs = replace(costs_of([1, 2]), cost_usd=cost)
    quality = np.tile(np.float32([0.9, 0.1]), (K, 1))
    for limit in (0.0, 5e-324, 1e-13):
        assert solve_map(quality, np.ones(K), costs, Budgets(cost_usd=limit)).expert_of.tolist() == [1] * K
    with pytest.raises(InfeasibleBudgetError, match="smallest value that would do is 5e-07"):
        solve_map(quality[:, :1], np.ones(K), replace(costs_of([1]), cost_usd=cost[:, :1]), Budgets(cost_usd=0))


def test_a_budget_that_is_met_exactly_is_met():
    thirds = np.full(K, 1 / 3, np.float32)
    found = solve_map(np.full((K, 2), 0.5, np.float32), thirds, costs_of([7, 7]), Budgets(active_params_b=7))
    assert found.used["active_params_b"] == pytest.approx(7)


def test_binding_budget_is_reported_and_cost_counts_per_category():
    quality = np.array([[0.2, 0.9], [0.2, 0.9], [0.2, 0.9]], np.float32)
    costs = costs_of([1, 1], cost=[0.0, 3.0])
    found = solve_map(quality, np.ones(K, np.float32), costs, Budgets(cost_usd=1.0))
    assert found.binding == ("cost_usd",)
    assert found.used["cost_usd"] == pytest.approx(1.0)
    assert sorted(found.expert_of) == [0, 0, 1]


@pytest.mark.parametrize("is_main", [True, False])
def test_what_the_solver_prints_never_reaches_the_standard_output_of_a_command(monkeypatch, capfd, is_main):
    def talkative(*arguments, **options):
        os.write(1, b"HighsMipSolverData::transformNewIntegerFeasibleSolution tmpSolver.run();\n")
        return milp(*arguments, **options)

    def work():
        solve_map(np.full((K, 2), 0.5, np.float32), np.ones(K, np.float32), costs_of([1, 2]), Budgets(latency_ms=9))
        print("{}")

    milp = scipy.optimize.milp
    monkeypatch.setattr(scipy.optimize, "milp", talkative)
    if is_main:
        work()
        assert capfd.readouterr().out == "{}\n"
        return
    other = threading.Thread(target=work)  # as in a server, whose file descriptors are those of all its threads
    other.start()
    other.join()
    assert "tmpSolver" in capfd.readouterr().out


def test_budgets_of_which_each_two_exclude_each_other_are_named_in_order():
    rows = (10 - 9 * np.eye(3)).astype(np.float32)
    costs = replace(costs_of(rows[0], cost=rows[1]), latency_ms=np.tile(rows[2], (K, 1)))
    budgets = Budgets(active_params_b=2, cost_usd=2, latency_ms=2)
    with pytest.raises(InfeasibleBudgetError, match=r"^budget cost_usd=2 cannot be met; .* is 10$"):
        solve_map(np.ones((K, 3), np.float32), np.ones(K, np.float32), costs, budgets)


def test_an_expert_a_little_above_the_budget_is_not_chosen():
    quality = np.tile(np.float32([0.9, 0.1]), (K, 1))
    for size in (1.05, 1.001, 1.0):
        found = solve_map(quality, np.ones(K), costs_of([size, 0.99]), Budgets(active_params_b=1.0))
        assert (found.expert_of == 0).all() == (size == 1.0)
        assert found.used["active_params_b"] <= 1.0 + 1e-5
