"""Collapse, degradation and underfitting on cases that show each of them, and on one that shows none."""

from __future__ import annotations

import numpy as np
import pytest

from eval.routing.diagnostics import Cells, Routed, diagnose, largest_always, routing_entropy
from eval.routing.routing_records import FrontierPoint
from router.types import GENERAL

EXPERTS = ("small", "maths", "huge")
SIZES = np.array([2.0, 7.0, 70.0])
MAP = {"a": "maths", "b": "huge", GENERAL: "small"}
FULL = Cells(("a", "b", GENERAL), np.full((3, 3), 25.0))


def routed(chosen: list[int], fallback: list[bool]) -> Routed:
    return Routed(
        chosen=np.array(chosen),
        scores=np.tile([0.4, 0.9, 0.8], (4, 1)),
        categories=("a", "a", "b", "b"),
        is_fallback=np.array(fallback),
        expert_of=MAP,
        experts=EXPERTS,
    )


def point(budget: float, shares: dict[str, float]) -> FrontierPoint:
    return FrontierPoint(budget=budget, amount=budget, mean_score=0.5, interval=(0.4, 0.6), gain=None, shares=shares)


def test_a_healthy_router_shows_nothing() -> None:
    found = diagnose(routed([1, 1, 2, 0], [False] * 4), FULL, [], SIZES)
    assert (found.degraded, found.underused, found.thin, found.rare) == ((), (), (), {})
    assert (found.top_expert, found.top_share, found.is_largest_always) == ("maths", 0.5, None)
    assert found.routing_entropy == pytest.approx(1.5 * np.log(2) / np.log(3))


def test_collapse_shows_in_entropy_and_rare_experts() -> None:
    found = diagnose(routed([2, 2, 2, 2], [False] * 4), FULL, [], SIZES)
    assert (found.routing_entropy, found.top_expert, found.top_share) == (0.0, "huge", 1.0)
    assert found.rare == {"small": 0.0, "maths": 0.0}
    assert routing_entropy(np.full(5, 0.2)) == pytest.approx(1.0)


def test_more_budget_that_only_buys_the_largest_is_told_from_a_mixed_use() -> None:
    ends = [point(10, {"small": 0.9, "huge": 0.1}), point(40, {"small": 0.5, "huge": 0.5})]
    assert largest_always(ends, SIZES, EXPERTS) is True
    assert largest_always([*ends, point(30, {"maths": 0.6, "huge": 0.4})], SIZES, EXPERTS) is False
    assert largest_always(ends, np.array([2.0, 70.0, 70.0]), EXPERTS) is None
    assert largest_always([], SIZES, EXPERTS) is None


def test_degradation_names_the_category_that_general_receives() -> None:
    found = diagnose(routed([0, 0, 2, 0], [True, True, False, True]), FULL, [], SIZES)
    assert [(row.category, row.n, row.share, row.expert) for row in found.degraded] == [("a", 2, 1.0, "small")]


def test_underuse_needs_the_better_expert_to_serve_less() -> None:
    found = diagnose(routed([0, 0, 2, 0], [False] * 4), FULL, [], SIZES)
    assert [(row.category, row.share) for row in found.underused] == [("a", 1.0)]
    worse = Routed(
        chosen=np.array([0, 0]),
        scores=np.tile([0.9, 0.4, 0.4], (2, 1)),
        categories=("a", "a"),
        is_fallback=np.zeros(2, dtype=bool),
        expert_of=MAP,
        experts=EXPERTS,
    )
    assert diagnose(worse, FULL, [], SIZES).underused == ()


def test_thin_cells_are_named_with_what_is_missing() -> None:
    count = np.full((3, 3), 100.0)
    count[0, 1], count[0, 0], count[1, 2], count[2, 0] = 20, 25, 3, 0
    found = diagnose(routed([1, 1, 2, 0], [False] * 4), Cells(("a", "b", GENERAL), count), [], SIZES)
    assert found.needed_per_cell == 25  # 0.5 / sqrt(25) = 0.1
    assert [(c.category, c.expert, c.count, c.missing) for c in found.thin] == [
        ("b", "huge", 3, 22),
        ("a", "maths", 20, 5),
    ]
    assert found.n_thin == 2
