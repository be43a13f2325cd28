"""The numbers of a report on a trial whose answers are known by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.eval.metrics.paired import Paired
from coe.eval.routing import routing_report
from coe.eval.routing import trial as trials
from coe.eval.routing.routing_records import Arm
from coe.router.config.policy import Budgets
from tests.eval.routing.trial_data import report_of, trial, with_costs


def arms_of(found: trials.Trial) -> dict[str, Arm]:
    scores = scores_of(found)
    return {arm.name: routing_report.arm_record(found, arm, arm.name, scores) for arm in found.arms}


def scores_of(found: trials.Trial) -> Paired:
    values = {arm.name: routing_report.expected_scores(arm.probs, found) for arm in found.arms}
    alone = {f"expert {name}": found.scores[:, e] for e, name in enumerate(found.test.experts)}
    return Paired.of({**values, **alone}, np.random.default_rng(0))


def test_every_arm_has_its_known_mean() -> None:
    means = {name: arm.mean_score for name, arm in arms_of(trial()).items()}
    assert means == pytest.approx(
        {
            "coe": 0.875,
            "best_single": 0.75,
            "best_single_hindsight": 0.75,
            "knn": 0.75,
            "category_oracle": 0.75,
            "map_true": 0.75,
            "query_oracle": 1.0,
        }
    )


def test_every_arm_but_those_of_hindsight_is_chosen_on_the_fit_table() -> None:
    """On the test queries law is best alone, and best under a budget; on the fit ones it is neither."""
    found = with_costs(trial(), [0.001, 0.004, 0.009])
    test = replace(
        found.test,
        scores=np.tile(np.float32([0.1, 0.2, 0.9]), (4, 1)),
        cost_usd=np.tile(np.float32([0.009, 0.004, 0.001]), (4, 1)),
    )
    swapped = replace(found, test=test)
    arms = arms_of(swapped)
    assert arms["best_single"].shares == {"maths": 1.0}
    assert arms["best_single"].mean_score == pytest.approx(0.2)
    limited = arms_of(replace(swapped, budgets=Budgets(cost_usd=0.005)))
    assert limited["best_single"].shares == {"maths": 1.0}
    assert set(limited["best_mixture"].shares) == {"maths"}
    assert arms["knn"].shares == {"maths": 0.5, "law": 0.5}
    assert arms["query_oracle"].shares == {"law": 1.0}
    assert arms["best_single_hindsight"].label == "Best single in hindsight (law)"
    assert limited["best_single_hindsight"].shares == {"maths": 1.0}  # law alone is too expensive on the fit queries


def test_sizes_and_costs_are_means_over_queries_and_none_where_unknown() -> None:
    arms = arms_of(trial())
    assert arms["coe"].mean_active_params_b == pytest.approx((7 + 7 + 2 + 20) / 4)
    assert arms["query_oracle"].mean_active_params_b == pytest.approx((7 * 3 + 20) / 4)
    assert arms["coe"].mean_cost_usd is None
    priced = arms_of(with_costs(trial(), [0.001, 0.004, np.nan]))
    assert priced["best_single"].mean_cost_usd == pytest.approx(0.004)
    assert priced["coe"].mean_cost_usd is None  # the law expert answered one query, and its cost is unknown


def test_an_unknown_cost_of_one_pair_takes_the_experts_mean() -> None:
    found = with_costs(trial(), [0.001, 0.004, 0.009])
    holes = found.test.cost_usd.copy()
    holes[0, 1] = np.nan
    assert arms_of(replace(found, test=replace(found.test, cost_usd=holes)))["best_single"].mean_cost_usd == (
        pytest.approx(0.004)
    )


def test_costs_by_category_are_means_of_what_is_known_there() -> None:
    found = with_costs(trial(), [0.001, 0.004, np.nan]).fit
    cost = found.cost_usd.copy()
    is_a = np.array(found.categories) == "a"
    cost[is_a, 1], cost[~is_a, 1] = np.nan, 0.002
    cost[np.flatnonzero(is_a)[0], 0] = 0.009
    by_category = trials.costs_by_category(replace(found, cost_usd=cost), ("a", "b"))
    n, k = int(is_a.sum()), len(is_a)
    assert by_category[:, 0] == pytest.approx([0.001 + 0.008 / n, 0.001, 0.001 + 0.008 / k])
    assert by_category[:, 1] == pytest.approx([0.002] * 3)  # none is known in the first, so it takes the mean
    assert np.isnan(by_category[:, 2]).all()


def test_costs_that_are_filled_are_counted_where_an_expert_has_any() -> None:
    priced = with_costs(trial(), [0.001, 0.004, np.nan]).test
    assert trials.filled_costs(priced) == 0
    cells = priced.cost_usd.copy()
    cells[1:, 0] = np.nan
    assert trials.filled_costs(replace(priced, cost_usd=cells)) == pytest.approx(3 / 8)
    assert trials.filled_costs(trial().test) == 0


def test_shares_name_who_answered() -> None:
    arms = arms_of(trial())
    assert arms["coe"].shares == {"maths": 0.5, "small": 0.25, "law": 0.25}


def test_a_budget_limits_the_best_single_and_adds_the_best_mixture() -> None:
    arms = arms_of(replace(trial(), budgets=Budgets(active_params_b=5)))
    assert arms["best_single"].label == "Best single within the budget (small)"
    assert arms["best_single"].mean_score == pytest.approx(0.3125)
    assert arms["best_mixture"].mean_active_params_b == pytest.approx(5)
    assert arms["best_mixture"].mean_score == pytest.approx(0.4 * 0.3125 + 0.6 * 0.75)
    assert "best_mixture" not in arms_of(trial())


def with_latencies(found: trials.Trial, ms: list[float]) -> trials.Trial:
    """The same trial with a mean latency per expert on the fit queries, one of which is slower than the others."""
    times = np.tile(np.array(ms, dtype=np.float32), (8, 1))
    times[0] *= 2
    times[1:] *= 6 / 7
    return replace(found, fit=replace(found.fit, latency_ms=times))


def test_a_latency_budget_limits_the_best_single_and_the_mixture_by_means_of_the_fit_rows() -> None:
    found = with_latencies(trial(), [100, 300, 900])
    arms = arms_of(replace(found, budgets=Budgets(latency_ms=200)))
    assert arms["best_single"].label == "Best single within the budget (small)"
    assert arms["best_mixture"].shares == pytest.approx({"small": 0.5, "maths": 0.5}, abs=1e-6)
    arms = arms_of(replace(found, budgets=Budgets(latency_ms=301)))
    assert arms["best_single"].label == "Best single within the budget (maths)"


def test_a_mixture_hosts_both_of_its_experts_and_keeps_one_limit_on_an_average() -> None:
    """The law expert, of 20 billion, would make the better mixture with the small one if it could be hosted."""
    better = replace(trial(), fit=replace(trial().fit, scores=trial().fit.scores + np.float32([0, 0, 0.5])))
    arms = arms_of(replace(better, budgets=Budgets(active_params_b=5)))
    assert set(arms["best_mixture"].shares) == {"small", "law"}
    arms = arms_of(replace(better, budgets=Budgets(active_params_b=5, hosted_params_b=20)))
    assert set(arms["best_mixture"].shares) == {"small", "maths"}
    arms = arms_of(replace(better, budgets=Budgets(active_params_b=5, hosted_params_b=8)))
    assert set(arms["best_mixture"].shares) == {"small"}
    several = with_latencies(better, [1, 1, 1])
    assert "best_mixture" not in arms_of(replace(several, budgets=Budgets(active_params_b=5, latency_ms=9)))


def test_where_no_expert_alone_keeps_the_budgets_the_best_single_is_not_said_to() -> None:
    found = with_latencies(trial(), [900, 100, 100])
    arms = arms_of(replace(found, budgets=Budgets(active_params_b=5, latency_ms=500)))
    assert arms["best_single"].label == "Best single (maths)"


def test_gains_are_paired_and_the_gap_is_closed_halfway() -> None:
    found = trial()
    coe = arms_of(found)["coe"]
    gain = coe.gain
    assert set(gain) == {"best_single", "best_single_hindsight", "map_true", "knn"}
    assert gain["best_single"].mean == pytest.approx(0.125)
    assert gain["best_single"].interval == pytest.approx((-0.375, 0.75), abs=0.13)
    assert gain["knn"].mean == pytest.approx(0.125)
    assert gain["knn"].interval[0] == pytest.approx(0.0)  # on every single query at least as good as k-NN
    assert coe.gap_closed.mean == pytest.approx(0.5)
    assert coe.gap_closed.interval[0] <= 0.5 <= coe.gap_closed.interval[1]


def test_a_category_that_was_never_learned_is_mapped_as_general() -> None:
    found = trial()
    strange = replace(found.test, categories=("a", "a", "b", "new"))
    assert replace(found, test=strange).mapped.tolist() == [1, 1, 2, 0]


def test_stage_one_counts_right_sure_and_wrong() -> None:
    found = routing_report.stage_one_record(trial())
    assert found.calibration_error == pytest.approx(abs(0.9 - 0.75))
    assert (found.accuracy, found.coverage, found.error_when_sure) == (0.75, 0.75, 0.0)
    assert found.n_categories == 2


def test_rows_of_experts_and_categories() -> None:
    found = trial()
    experts = routing_report.expert_rows(found, scores_of(found))
    assert [(row.expert, row.mean_score, row.share) for row in experts] == [
        ("maths", 0.75, 0.5),
        ("small", 0.3125, 0.25),
        ("law", 0.25, 0.25),
    ]
    rows = report_of(found).categories
    second = next(row for row in rows if row.category == "b")
    assert (second.n_fit, second.n_test, second.expert) == (4, 2, "law")
    assert (second.accuracy, second.fallback_share) == (0.5, 0.5)
    assert second.scores["coe"] == pytest.approx(0.75)
    assert second.experts == {"small": 0.375, "maths": 0.5, "law": 0.5}
