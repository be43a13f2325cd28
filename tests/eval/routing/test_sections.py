"""The records of methods, frontiers, categories and losses, on the small trial whose answers are known by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from coe.eval.routing.baselines import one_hot
from coe.eval.routing.routing_records import Report
from coe.eval.routing.trial import Choice, Trial
from tests.eval.routing.trial_data import TEST_SCORES, report_of, trial, with_costs


def oracle() -> Choice:
    return Choice("perfect", "Perfect", "it knows", one_hot(np.array(TEST_SCORES).argmax(axis=1), 3), "method")


def worst() -> Choice:
    return Choice("worst", "Worst", "it errs", one_hot(np.array(TEST_SCORES).argmin(axis=1), 3), "method")


def tried() -> Trial:
    return replace(with_costs(trial(), [0.001, 0.004, 0.009]), methods=(oracle(), worst()))


@cache
def sections() -> Report:
    return report_of(tried())


def test_methods_are_measured_against_the_arms() -> None:
    found = sections().methods
    perfect = found["perfect"]
    assert perfect.mean_score == 1.0
    assert perfect.gap_closed.mean == 1.0
    assert {name: gain.mean for name, gain in perfect.gain.items()} == pytest.approx(
        {"coe": 0.125, "best_single": 0.25, "best_single_hindsight": 0.25, "map_true": 0.25, "knn": 0.25}
    )
    assert perfect.mean_active_params_b == pytest.approx((3 * 7 + 20) / 4)
    assert perfect.mean_cost_usd == pytest.approx((3 * 0.004 + 0.009) / 4)
    assert found["worst"].mean_score == 0.0
    assert found["worst"].gap_closed.mean == pytest.approx(-3.0)
    assert perfect.gain["knn"].interval[0] >= 0  # never worse on any query


def test_the_same_seed_gives_the_same_sections() -> None:
    assert sections() == report_of(tried())
