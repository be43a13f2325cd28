"""The records of methods, frontiers, categories and losses, on the small trial whose answers are known by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from coe.eval.routing.routing_records import Report
from coe.eval.routing.routing_report import build_confusion, build_lost, thin_cells
from coe.eval.routing.trial import MethodOutput, Trial
from tests.eval.routing.trial_data import EXPERTS, TEST_SCORES, report_of, trial, with_costs


def oracle(**changes: object) -> MethodOutput:
    scores = np.array(TEST_SCORES)
    made = MethodOutput("perfect", "Perfect", "it knows", scores, scores.argmax(axis=1), is_default=True)
    return replace(made, **changes)


def worst() -> MethodOutput:
    scores = np.array(TEST_SCORES)
    return MethodOutput("worst", "Worst", "it errs", np.full((4, 3), 0.5), scores.argmin(axis=1))


def tried() -> Trial:
    return replace(with_costs(trial(), [0.001, 0.004, 0.009]), methods=(oracle(fit_s=1.5), worst()))


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
    assert (perfect.fit_s, perfect.calibration_error) == (1.5, 0.0)
    assert perfect.mean_active_params_b == pytest.approx((3 * 7 + 20) / 4)
    assert perfect.mean_cost_usd == pytest.approx((3 * 0.004 + 0.009) / 4)
    assert (found["worst"].mean_score, found["worst"].calibration_error) == (0.0, 0.5)
    assert found["worst"].gap_closed.mean == pytest.approx(-3.0)
    assert perfect.gain["knn"].interval[0] >= 0  # never worse on any query


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


def test_thin_cells_are_named_with_what_is_missing() -> None:
    counts = {"a": np.array([25.0, 20.0, 100.0]), "b": np.array([100.0, 100.0, 3.0])}
    found = thin_cells(counts, EXPERTS)
    assert [(c.category, c.expert, c.count, c.missing) for c in found] == [("b", "law", 3, 22), ("a", "maths", 20, 5)]
    report = report_of(replace(tried(), counts=counts))
    assert (report.thin_cells, report.n_thin_cells) == (tuple(found), 2)


def test_the_same_seed_gives_the_same_sections() -> None:
    assert sections() == report_of(tried())
