"""The sections on the small trial whose answers are known by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from eval.routing.arm_records import build_lost, build_router_arena
from eval.routing.budget_curves import build_frontier
from eval.routing.routing_records import Report
from eval.routing.routing_report import build_cheap_strong, build_confusion
from eval.routing.trial import MethodOutput, Trial
from router.policy_config import Budgets
from router.types import GENERAL
from tests.eval.routing.trial_data import TEST_SCORES, evidence, report_of, trial, with_costs

ROWS = ("a", "b", GENERAL)
EVIDENCE = evidence(
    quality=np.array([[0.4, 1.0, 0.0], [0.4, 0.0, 0.75], [0.4, 0.5, 0.375]]),
    mass=np.array([0.4, 0.4, 0.2]),
    count=np.array([[30.0, 30, 30], [30, 30, 4], [60, 60, 34]]),
)


def oracle(**changes: object) -> MethodOutput:
    scores = np.array(TEST_SCORES)
    chosen = scores.argmax(axis=1)
    made = MethodOutput("perfect", "Perfect", "it knows", scores, chosen, sample_quality=scores, is_default=True)
    return replace(made, **changes)


def worst() -> MethodOutput:
    scores = np.array(TEST_SCORES)
    return MethodOutput("worst", "Worst", "it errs", np.full((4, 3), 0.5), scores.argmin(axis=1))


def tried(**changes: object) -> Trial:
    found = with_costs(trial(), [0.001, 0.004, 0.009])
    return replace(found, methods=(oracle(fit_s=1.5, decide_us=20.0), worst()), evidence=EVIDENCE, rows=ROWS, **changes)


def with_oracle(found: Trial) -> Trial:
    return replace(found, methods=(oracle(),))


def deciding(*numbers: int) -> Trial:
    """The trial where the router chose these experts."""
    found = tried()
    experts = [found.test.experts[number] for number in numbers]
    pairs = zip(found.decisions, experts, strict=True)
    return replace(found, decisions=[decision.model_copy(update={"expert": expert}) for decision, expert in pairs])


@cache
def sections() -> Report:
    return report_of(tried())


def test_methods_are_measured_against_the_arms() -> None:
    found = sections().methods
    perfect = found["perfect"]
    assert (perfect.mean_score, perfect.is_default) == (1.0, True)
    assert perfect.gap_closed.mean == 1.0
    assert {name: gain.mean for name, gain in perfect.gain.items()} == pytest.approx(
        {"coe": 0.125, "best_single": 0.25, "best_single_hindsight": 0.25, "map_true": 0.25, "knn": 0.25}
    )
    assert (perfect.fit_s, perfect.decide_us) == (1.5, 20.0)
    assert perfect.mean_active_params_b == pytest.approx((3 * 7 + 20) / 4)
    assert perfect.mean_cost_usd == pytest.approx((3 * 0.004 + 0.009) / 4)
    assert found["worst"].mean_score == 0.0
    lost = found["worst"].gap_closed
    assert lost.mean == pytest.approx(-3.0)
    assert perfect.gain["knn"].interval[0] >= 0  # never worse on any query


def test_router_arena_leaves_out_hindsight_and_unknown_costs() -> None:
    record = sections()
    assert set(record.router_arena) == {"coe", "random", "best_single", "knn", "cheapest", "perfect", "worst"}
    cost = 1000 * (3 * 0.004 + 0.009) / 4
    share = (np.log2(200) - np.log2(cost)) / (np.log2(200) - np.log2(0.0044))
    assert record.router_arena["perfect"].mean == pytest.approx(1.1 * share / (0.1 + share))
    assert record.router_arena["worst"].interval == (0.0, 0.0)  # nothing is ever right
    low, high = record.router_arena["coe"].interval
    assert low < record.router_arena["coe"].mean < high
    unknown = with_oracle(trial())
    assert build_router_arena(unknown, np.random.default_rng(0)) == {}


def test_the_frontier_has_every_known_budget_and_curve() -> None:
    found = sections().frontier
    assert set(found) == {"active_params_b", "cost_usd", "hosted_params_b"}
    for name, curves in found.items():  # `worst` has no sample to find prices on
        drawn = {"map_drawn"} if name != "hosted_params_b" else set()
        assert set(curves) == {"map", "perfect", "best_mixture"} | drawn
    sized = found["active_params_b"]
    assert (sized["perfect"][0].budget, sized["perfect"][0].amount) == (2.0, 2.0)
    assert (sized["perfect"][-1].mean_score, sized["perfect"][-1].amount) == (1.0, pytest.approx(41 / 4))
    assert sized["map"][-1].mean_score == pytest.approx(0.875 + (1.0 - 0.5) / 4)  # without a budget general is maths
    assert build_frontier(trial(), np.random.default_rng(0)) == {}
    assert set(build_frontier(with_oracle(trial()), np.random.default_rng(0))) == {
        "active_params_b",
        "hosted_params_b",
    }


def test_a_budget_of_the_request_is_a_point_of_the_frontier() -> None:
    found = build_frontier(tried(budgets=Budgets(active_params_b=11.5)), np.random.default_rng(0))
    assert 11.5 in [point.budget for point in found["active_params_b"]["map"].points]


def test_aiq_compares_curves_up_to_the_same_cost() -> None:
    record = sections()
    aiq, hull = record.aiq, record.hull
    assert aiq["perfect"].mean > aiq["map"].mean > 0
    # the experts alone: (0.001, 0.3125), (0.004, 0.75), (0.009, 0.25) and the null router
    assert aiq["experts"].mean == pytest.approx((0.5 * 0.3125 + 3 * (0.3125 + 0.75) / 2 + 5 * 0.75) / 9)
    for name, found in aiq.items():
        assert found.interval[0] <= found.mean <= found.interval[1], name
    assert hull[-1] == pytest.approx((0.00525, 1.0))
    assert hull[0][1] > 0


def test_where_the_test_queries_cost_nothing_there_is_no_aiq() -> None:
    """The fit queries had costs, so there is a frontier; a table of `--test` may have recorded zeros."""
    found = tried()
    record = report_of(replace(found, test=replace(found.test, cost_usd=np.zeros((4, 3), dtype=np.float32))))
    assert "cost_usd" in record.frontier
    assert record.aiq == {}


def test_calibration_of_categories_and_methods() -> None:
    found = sections().calibration
    assert set(found) == {"category", "perfect", "worst"}
    assert found["category"].ece == pytest.approx(abs(0.9 - 0.75))
    assert found["perfect"].ece == 0.0
    assert (found["worst"].ece, found["worst"].brier) == (0.5, 0.25)
    assert [(p.predicted, p.observed, p.count) for p in found["worst"].points] == [(0.5, 0.0, 4)]


def test_confusion_counts_true_by_likely() -> None:
    found = sections().confusion
    assert (found.categories, found.counts) == (("a", "b"), ((2, 0), (1, 1)))
    folded = build_confusion(["a", "a", "b", "c"], ["a", "c", "a", "b"], shown=1)
    assert (folded.categories, folded.counts) == (("a", "(other)"), ((1, 1), (1, 1)))


def test_the_worst_losses_come_first_and_are_cut() -> None:
    long = ("one\ntwo " * 60, "x", "y", "z")
    chosen = deciding(0, 1, 2, 0)
    found = build_lost(replace(chosen, test=replace(chosen.test, texts=long)))
    assert [(row.prompt_id, row.chosen, row.best) for row in found] == [
        ("test2", "law", "maths"),
        ("test3", "small", "law"),
        ("test0", "small", "maths"),
    ]
    assert [row.best_score - row.chosen_score for row in found] == [1.0, 0.75, 0.5]
    assert found[2].excerpt.startswith("one two one")
    assert len(found[2].excerpt) <= 200
    assert found[2].excerpt.endswith("\u2026")
    assert len(build_lost(chosen, shown=1)) == 1


def two_experts() -> Trial:
    """A strong one and a weak one, with a method that knows every score."""
    both = tried()
    amounts = ("scores", "cost_usd", "output_tokens", "latency_ms")
    fit, test = (
        replace(part, experts=("maths", "small"), **{name: getattr(part, name)[:, [1, 0]] for name in amounts})
        for part in (both.fit, both.test)
    )
    weak = replace(fit, scores=fit.scores * np.float32([1.0, 0.1]))
    return replace(both, fit=weak, test=test, methods=(oracle(quality=both.scores[:, [1, 0]]),))


def test_two_experts_get_a_curve_of_strong_calls() -> None:
    assert sections().cheap_strong is None
    two = two_experts()
    found = build_cheap_strong(two, np.random.default_rng(0))
    assert (found.weak, found.strong) == ("small", "maths")
    assert (found.weak_score, found.strong_score, found.oracle_score) == pytest.approx((0.3125, 0.75, 0.8125))
    assert set(found.orders) == {"perfect", "random", "oracle"}
    assert found.orders["perfect"].apgr == found.orders["oracle"].apgr
    of_random = found.orders["random"].apgr
    assert (of_random.mean, *of_random.interval) == pytest.approx((0.5, 0.5, 0.5))
    assert {level: each.mean for level, each in found.orders["random"].cpt.items()} == pytest.approx({50: 0.5, 80: 0.8})


def test_diagnostics_need_evidence_and_name_thin_cells() -> None:
    found = sections().diagnostics
    assert [(c.category, c.expert, c.missing) for c in found.thin] == [("b", "law", 21)]
    assert found.is_largest_always is False  # maths serves too
    assert report_of(trial()).diagnostics is None


def test_the_same_seed_gives_the_same_sections() -> None:
    assert sections() == report_of(tried())
