"""Worth of learning and cost of exploring, on logs whose truth is known."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.router_versions import RouterVersions
from coe.eval.log.loop_worth import exploration_cost, loop_sentences, measure_loop
from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config.composition import load_config
from coe.router.types import DecisionReason, Metric
from coe.training.fit_inputs import RetrainRequest
from coe.training.retrain import run_retrain
from coe.training.summary import in_points
from tests.training.log_records import record
from tests.training.test_retrain import NOW, log_answers, request_

__all__ = ["request_"]
TRUTH, PROPENSITY = {"left": 0.8, "right": 0.5}, 0.1


def note(request: RetrainRequest) -> None:
    """Writes what a gateway does of the live router."""
    pointer = Registry(request.routers).live()
    store = Database(request.database_url)
    RouterVersions(store).note(pointer)
    store.close()


def learned(request: RetrainRequest) -> RetrainRequest:
    """A day in which one retraining gave `sql` to the expert that is better by 0.7; asked of the day."""
    note(request)
    log_answers(request, {"left": 0.2, "right": 0.9})
    result = run_retrain(request, now=NOW + timedelta(hours=1))
    assert result.is_promoted, result.reason
    note(request)
    return replace(request, since=(NOW - timedelta(hours=1)).timestamp())


def test_a_move_is_worth_what_is_known_of_both_experts(request_: RetrainRequest) -> None:
    request = learned(request_)
    later = NOW + timedelta(days=1)
    found = measure_loop(request, later)
    assert [step.changes["sql"] for step in found.steps] == ["left to right"]
    assert found.worth is not None, found.unknown
    live = load_router(load_config(request.config), request.routers / found.live)
    matrix, sql = live.scorer.measured.evidence, live.categories.index("sql")
    lead = float(matrix.quality[sql, 1] - matrix.quality[sql, 0])
    assert 0.5 < lead < 0.9
    assert found.worth.value == pytest.approx(matrix.mass[sql] / matrix.mass.sum() * lead, abs=0.01)
    assert found.worth.interval.low > 0.4
    said = loop_sentences(found)[0]
    assert re.match(r"Learning changed the expert of sql\. What it is worth, with challengers .*: \+", said)
    before = measure_loop(replace(request, since=later.timestamp()), later)
    assert (before.steps, before.unknown) == ((), f"router {found.live} was live all of the time")


def test_a_router_that_is_gone_is_named(request_: RetrainRequest) -> None:
    request = learned(request_)
    before = measure_loop(request, NOW + timedelta(days=1)).before
    shutil.rmtree(request.routers / before)
    found = measure_loop(request, NOW + timedelta(days=1))
    assert f"unknown router version '{before}'" in found.unknown


def explored(n: int, rng: np.random.Generator, **changes: object) -> Iterator[tuple[DecisionRecord, float]]:
    """n decisions in which `right` is tried instead of `left` with probability 0.1, and what users say of them."""
    for seq in range(n):
        is_tried = bool(rng.random() < PROPENSITY)
        expert = "right" if is_tried else "left"
        made = record(seq, propensity=PROPENSITY if is_tried else 1 - PROPENSITY, **changes)
        decision = made.decision.model_copy(
            update={
                "expert": expert,
                "reason": DecisionReason.EXPLORED if is_tried else DecisionReason.MAP,
                "ranking": ("left", "right"),
                "eligible": ("left", "right"),
                "predicted_quality": (0.6, 0.5),
                "predicted_cost_usd": (0.001, 0.003),
            }
        )
        yield (
            made.model_copy(update={"decision": decision, "served_expert": expert, "text": f"question {seq}"}),
            float(rng.random() < TRUTH[expert]),
        )


def test_the_cost_of_exploring_holds_the_truth() -> None:
    """The router predicts a loss of 0.1 a try where it is 0.3; at one try in ten that is 0.03 a decision."""
    rng, held, values = np.random.default_rng(3), [], []
    for _ in range(40):
        pairs = list(explored(400, rng))
        cost = exploration_cost((one for one, _ in pairs), {one.decision_id: r for one, r in pairs})
        held.append(cost.measured.interval.low <= 0.03 <= cost.measured.interval.high)
        values.append(cost.measured.value)
        assert cost.predicted == pytest.approx(0.1 * cost.n_explored / 400)
        assert cost.extra_usd == pytest.approx(0.002 * cost.n_explored)
    assert np.mean(held) >= 0.85
    assert np.mean(values) == pytest.approx(0.03, abs=0.006)


def test_probes_are_no_traffic_and_few_ratings_measure_nothing() -> None:
    rng = np.random.default_rng(1)
    probes = [one for one, _ in explored(50, rng, is_probe=True)]
    assert exploration_cost(probes, {}).n == 0
    pairs = list(explored(50, rng))
    cost = exploration_cost((one for one, _ in pairs), {})
    assert (cost.n, cost.measured) == (50, None)


def test_a_loss_of_next_to_nothing_is_no_minus_zero() -> None:
    worth = Metric.within(-0.0002, -0.0001, 0.0001, 500)
    assert in_points(worth, "+z,.1f") == "+0.0 [+0.0, +0.0]"
    assert in_points(worth) == "0.0 [0.0, 0.0]"
