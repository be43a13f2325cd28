"""Collapse, degradation and underfitting on cases that show each of them, and on one that shows none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eval.routing import routing_report
from eval.routing.routing_records import Diagnostics, FrontierPoint
from eval.routing.routing_report import largest_always, routing_entropy
from router.types import GENERAL
from tests.eval.routing.trial_data import EXPERTS, decision, evidence, table, trial

SIZES = np.array([2.0, 7.0, 70.0])
MAP = {"a": "maths", "b": "law", GENERAL: "small"}
FULL = np.full((3, 3), 25.0)


def diagnose(
    chosen: list[int],
    fallback: list[bool],
    count: np.ndarray = FULL,
    scores: tuple[float, float, float] = (0.4, 0.9, 0.8),
) -> Diagnostics:
    """The findings where the experts score the same on every query; the first two are of category a."""
    categories = ["a", "a", "b", "b"][: len(chosen)]
    decisions = [decision(EXPERTS[e], "a", is_fallback=away) for e, away in zip(chosen, fallback, strict=True)]
    known = {"evidence": evidence(np.full((3, 3), 0.5), np.ones(3), count), "rows": ("a", "b", GENERAL)}
    test = table([scores] * len(chosen), categories, "test")
    found = replace(trial(), test=test, decisions=decisions, expert_of=MAP, **known)
    diagnosed = routing_report.diagnose(found, [])
    assert diagnosed is not None
    return diagnosed


def point(budget: float, shares: dict[str, float]) -> FrontierPoint:
    return FrontierPoint(budget=budget, amount=budget, mean_score=0.5, interval=(0.4, 0.6), gain=None, shares=shares)


def test_a_healthy_router_shows_nothing() -> None:
    found = diagnose([1, 1, 2, 0], [False] * 4)
    assert (found.degraded, found.underused, found.thin, found.rare) == ((), (), (), {})
    assert (found.top_expert, found.top_share, found.is_largest_always) == ("maths", 0.5, None)
    assert found.routing_entropy == pytest.approx(1.5 * np.log(2) / np.log(3))


def test_collapse_shows_in_entropy_and_rare_experts() -> None:
    found = diagnose([2, 2, 2, 2], [False] * 4)
    assert (found.routing_entropy, found.top_expert, found.top_share) == (0.0, "law", 1.0)
    assert found.rare == {"small": 0.0, "maths": 0.0}
    assert routing_entropy(np.full(5, 0.2)) == pytest.approx(1.0)


def test_more_budget_that_only_buys_the_largest_is_told_from_a_mixed_use() -> None:
    ends = [point(10, {"small": 0.9, "law": 0.1}), point(40, {"small": 0.5, "law": 0.5})]
    assert largest_always(ends, SIZES, EXPERTS) is True
    assert largest_always([*ends, point(30, {"maths": 0.6, "law": 0.4})], SIZES, EXPERTS) is False
    assert largest_always(ends, np.array([2.0, 70.0, 70.0]), EXPERTS) is None
    assert largest_always([], SIZES, EXPERTS) is None


def test_degradation_names_the_category_that_general_receives() -> None:
    found = diagnose([0, 0, 2, 0], [True, True, False, True])
    assert [(row.category, row.n, row.share, row.expert) for row in found.degraded] == [("a", 2, 1.0, "small")]


def test_underuse_needs_the_better_expert_to_serve_less() -> None:
    found = diagnose([0, 0, 2, 0], [False] * 4)
    assert [(row.category, row.share) for row in found.underused] == [("a", 1.0)]
    assert diagnose([0, 0], [False] * 2, scores=(0.9, 0.4, 0.4)).underused == ()


def test_thin_cells_are_named_with_what_is_missing() -> None:
    count = np.full((3, 3), 100.0)
    count[0, 1], count[0, 0], count[1, 2], count[2, 0] = 20, 25, 3, 0
    found = diagnose([1, 1, 2, 0], [False] * 4, count)
    assert found.needed_per_cell == 25  # 0.5 / sqrt(25) = 0.1
    assert [(c.category, c.expert, c.count, c.missing) for c in found.thin] == [
        ("b", "law", 3, 22),
        ("a", "maths", 20, 5),
    ]
    assert found.n_thin == 2
