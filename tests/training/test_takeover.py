"""Takeovers without the gate: which moves may be made, and what they have to show."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from router.quality import QualityMatrix, cautious_quality
from training.candidate_verdict import MapChange
from training.change_points import ChangePoint
from training.evidence import Evidence
from training.new_experts import can_renew, renewed
from training.takeover import Reasons, find_takeover

ROWS = ("facts", "sql", "general")
MOVE = MapChange("sql", "left", "right")
FELL = (ChangePoint("sql", "left", 0.0, 0.9, 0.2),)


def evidence(*, left=0.2, right=0.8, stderr=0.08, count=30.0) -> Evidence:
    shape = (3, 2)
    matrix = QualityMatrix(
        quality=np.tile(np.array([left, right], np.float32), (3, 1)),
        stderr=np.full(shape, stderr, np.float32),
        count=np.full(shape, count, np.float32),
        mass=np.full(3, 1 / 3, np.float32),
        prompt_tokens=np.zeros(3, np.float32),
        output_tokens=np.zeros(shape, np.float32),
        latency_ms=np.zeros(shape, np.float32),
    )
    return Evidence(matrix, 0.0, SimpleNamespace(experts=("left", "right")), np.zeros(0))


def gain_of(found: Evidence, changes=FELL, known=("left", "right")) -> float:
    taken = find_takeover((MOVE,), Reasons.of(changes, found, known), found, ROWS)
    return 0.0 if taken is None else taken.gain


def test_the_gain_is_that_of_the_traffic_less_its_error():
    assert gain_of(evidence(stderr=1e-6, count=1e9)) == pytest.approx(0.6 / 3, abs=1e-3)
    assert 0 < gain_of(evidence()) < 0.6 / 3


def test_who_did_not_change_and_is_not_new_waits_for_the_gate():
    assert gain_of(evidence(), changes=()) == 0
    assert gain_of(evidence(), changes=(), known=("left",)) == gain_of(evidence())  # `right` is new


@pytest.mark.parametrize("lacking", [{"right": 0.3}, {"count": 10.0}, {"right": 0.34, "stderr": 0.005, "count": 20.0}])
def test_little_evidence_takes_nothing_over(lacking):
    """The last has cells that are next to certain because they were shrunk to the mean of 60 answers, which is not."""
    assert gain_of(evidence(**{"count": 24.0} | lacking)) == 0


def test_rows_are_those_of_changed_cells_and_of_new_experts():
    live, candidate = dict.fromkeys(ROWS, "left"), {"facts": "right", "sql": "left", "general": "left"}
    assert Reasons.of(FELL, evidence(), ("left", "right")).rows(live, candidate) == [1]
    assert Reasons.of((), evidence(), ("left",)).rows(live, candidate) == [0]


def test_a_row_that_is_decided_anew_stays_with_who_serves_it_unless_another_leads_beyond_the_error():
    """`left` served when the live map was measured, which gave all to `right`: that one is held against now, in any
    order of the experts. It fell in the first row, and is still better by half an error in the second."""
    found = evidence(left=0.6, right=0.8, stderr=0.03)
    known = replace(found.matrix, serving=np.zeros(3, np.float32))
    assert cautious_quality(known).argmax(axis=1).tolist() == [1, 1, 1]
    newer = replace(known, quality=np.array([[0.4, 0.7], [0.63, 0.61], [0.8, 0.6]], np.float32))
    now = SimpleNamespace(matrix=newer, outcomes=SimpleNamespace(experts=("right", "left")))  # `right` serves: column 0
    made = renewed(known, ("left", "right"), now, rows=[0, 1])
    assert cautious_quality(made.matrix).argmax(axis=1).tolist() == [0, 1, 1]
    assert made.matrix.serving.tolist() == [1, 1, 0]
    untouched = renewed(replace(known, serving=None), ("left", "right"), now)
    assert untouched.matrix.serving is None


@pytest.mark.parametrize(("kind", "rows", "is_able"), [("map", "ab", True), ("map", "ba", False), ("knn", "ab", False)])
def test_evidence_whose_rows_are_in_another_order_renews_nothing(kind, rows, is_able):
    manifest = SimpleNamespace(scorer=SimpleNamespace(kind=kind), categories=("a", "b"))
    assert can_renew(SimpleNamespace(manifest=manifest), tuple(rows)) is is_able
