"""A small trial with known answers: two categories, three experts, eight fit and four test queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from coe.eval.routing.routing_records import Report
from coe.eval.routing.routing_report import measure
from coe.eval.routing.routing_request import RoutingRequest
from coe.eval.routing.routing_run import data_facts
from coe.eval.routing.trial import Trial
from coe.eval.routing.trial_tables import Tables
from coe.router.types import GENERAL, DecisionReason, RoutingDecision
from coe.training.types import OutcomeTable
from tests.logged import decision_of
from tests.outcome_tables import scored_table

EXPERTS = ("small", "maths", "law")
SIZES = {"small": 2.0, "maths": 7.0, "law": 20.0}
"""Fit: maths is best on a, law on b, small is everywhere mediocre. Test: the first b query is an exception."""
FIT_SCORES = [[0.4, 1, 0]] * 4 + [[0.4, 0, 0.75]] * 4
TEST_SCORES = [[0.5, 1, 0], [0, 1, 0], [0.5, 1, 0], [0.25, 0, 1]]


def table(scores: Sequence[Sequence[float]], categories: Sequence[str], name: str) -> OutcomeTable:
    return scored_table(
        scores,
        categories,
        EXPERTS,
        prompt_ids=tuple(f"{name}{i}" for i in range(len(scores))),
        texts=tuple(f"{name} question {i} about {category}" for i, category in enumerate(categories)),
        splits=("train" if name == "fit" else "test",) * len(scores),
        metric="acc",
        source="tiny",
        active_params_b=SIZES,
    )


def decision(expert: str, likely: str, *, is_fallback: bool = False) -> RoutingDecision:
    return decision_of(
        expert,
        GENERAL if is_fallback else likely,
        is_fallback=is_fallback,
        reason=DecisionReason.UNCERTAIN if is_fallback else DecisionReason.MAP,
        likely_category=likely,
    )


def trial() -> Trial:
    """The router names the category of the first, second and last test query, and falls back on the third."""
    basis = np.eye(2, dtype=np.float32)
    return Trial(
        fit=table(FIT_SCORES, ["a"] * 4 + ["b"] * 4, "fit"),
        test=table(TEST_SCORES, ["a", "a", "b", "b"], "test"),
        fit_embeddings=basis[[0, 0, 0, 0, 1, 1, 1, 1]],
        test_embeddings=basis[[0, 0, 1, 1]],
        decisions=[
            decision("maths", "a"),
            decision("maths", "a"),
            decision("small", "a", is_fallback=True),
            decision("law", "b"),
        ],
        expert_of={"a": "maths", "b": "law", GENERAL: "small"},
    )


def with_costs(found: Trial, usd: Sequence[float]) -> Trial:
    """The same trial with a cost per expert; NaN is unknown."""
    return replace(
        found,
        **{
            name: replace(part, cost_usd=np.tile(np.array(usd, dtype=np.float32), (len(part.prompt_ids), 1)))
            for name, part in (("fit", found.fit), ("test", found.test))
        },
    )


def report_of(found: Trial, command: str = "coe eval routing --outcomes x") -> Report:
    """The report of a trial, with the same dice every time."""
    request = RoutingRequest(outcomes=Path("x"), out=Path("y"), command=command)
    tables = Tables(found.fit, found.test, {"train": 8, "valid": 0, "test": 4}, 0)
    facts = data_facts(request, tables, "0" * 16, "onnx")
    return measure(found, request, facts, rng=np.random.default_rng(0), now=datetime(2026, 1, 2, tzinfo=UTC))
