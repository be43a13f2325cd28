"""Takeovers without the gate: which moves may be made, and what they have to show."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from coe.router.quality import QualityMatrix, cautious_quality
from coe.training.change_points import ChangePoint
from coe.training.evidence import Evidence
from coe.training.failover import (
    can_renew,
    find_takeover,
    known_gain,
    opening_of,
    renewed,
    weighty_keys,
    without_guesses,
)
from coe.training.feedback_bias import UNLIMITED
from coe.training.router_comparison import MapChange

ROWS = ("facts", "sql", "general")
MOVE = MapChange("sql", "left", "right")
CELLS = ("quality", "stderr", "count", "output_tokens", "latency_ms")
FELL = (ChangePoint("sql", "left", 0.0, 0.9, 0.2),)


def evidence(*, left=0.2, right=0.8, stderr=0.08, count=30.0, tried=None) -> Evidence:
    """`tried`: answers of `right` in the category that moves, `count` if None."""
    shape = (3, 2)
    counts = np.full(shape, count, np.float32)
    counts[1, 1] = count if tried is None else tried
    errors = np.full(shape, stderr, np.float32)
    errors[1, 1] = 0.3 if tried == 0 else stderr
    matrix = QualityMatrix(
        quality=np.tile(np.array([left, right], np.float32), (3, 1)),
        stderr=errors,
        count=counts,
        mass=np.full(3, 7.0, np.float32),
        prompt_tokens=np.zeros(3, np.float32),
        output_tokens=np.zeros(shape, np.float32),
        latency_ms=np.zeros(shape, np.float32),
    )
    return Evidence(matrix, 0.0, SimpleNamespace(experts=("left", "right")), np.zeros(0))


LIVE = dict.fromkeys(ROWS, "left")


def gain_of(*found: Evidence, changes=FELL) -> float:
    return find_takeover((MOVE,), LIVE, opening_of(LIVE, changes), found)


def test_the_gain_is_that_of_the_traffic_less_its_error():
    assert gain_of(evidence(stderr=1e-6, count=1e9)) == pytest.approx(0.6 / 3, abs=1e-3)
    assert 0 < gain_of(evidence()) < 0.6 / 3


def test_nothing_is_known_of_a_move_to_somebody_without_evidence():
    assert gain_of(replace(evidence(), outcomes=SimpleNamespace(experts=("left", "another")))) == 0


def test_what_luck_shows_is_counted_over_all_that_could_have_been_chosen():
    """Errors of the difference: the 95% quantile of a normal one with one other expert, of the largest of three
    correlated ones with three (Dunnett's one-sided test, many degrees of freedom: 2.06), and of a sum of two rows."""
    few, error = evidence(stderr=0.1, count=25.0), math.sqrt(2) * 0.1 / 3
    others = replace(few.matrix, **{name: np.repeat(getattr(few.matrix, name), [1, 3], axis=1) for name in CELLS})
    many = replace(few, matrix=others, outcomes=SimpleNamespace(experts=("left", "right", "third", "fourth")))
    beyond = [(0.6 / 3 - gain_of(each)) / error for each in (few, many)]
    assert beyond == pytest.approx([1.645, 2.06], abs=0.07)
    assert (0.6 / 3 - gain_of(many, changes=(*FELL, ChangePoint("facts", "left", 0.0, 0.9, 0.2)))) / error > 3


@pytest.mark.parametrize("changes", [(), (ChangePoint("sql", "left", 0.0, 0.2, 0.9),)])
def test_who_did_not_fall_waits_for_the_gate(changes):
    assert gain_of(evidence(), changes=changes) == 0
    assert opening_of(LIVE, changes).rows == ()
    assert opening_of(LIVE, FELL).rows == (1,)


def test_moves_where_nobody_was_graded_are_not_judged():
    matrix = replace(evidence().matrix, guessed=np.array([0.0, 1.0, 0.0], np.float32))
    other = MapChange("facts", "left", "right")
    assert without_guesses((other, MOVE), LIVE, matrix) == (other,)
    assert without_guesses((MOVE,), LIVE, evidence().matrix) == (MOVE,)
    assert known_gain((MOVE,), evidence(right=0.3), LIVE) == pytest.approx(0.1 / 3)


def test_the_error_of_who_was_not_tried_counts():
    assert gain_of(evidence(right=0.4, tried=30)) > 0
    assert gain_of(evidence(right=0.4, tried=0)) == 0


@pytest.mark.parametrize("lacking", [{"right": 0.3}, {"count": 10.0}])
def test_little_evidence_takes_nothing_over(lacking):
    assert gain_of(evidence(**{"count": 24.0} | lacking)) == 0
    assert gain_of(evidence(count=20.0)) > 0


def test_a_gain_has_to_be_shown_without_any_one_key():
    whole, without_key = evidence(), evidence(right=0.5)
    assert gain_of(whole, without_key) == gain_of(without_key) < gain_of(whole)
    assert gain_of(whole, evidence(right=0.25)) == 0


def test_keys_with_a_hundredth_of_the_moved_categories_are_left_out():
    """Key 3 says little there, 4 much elsewhere, and what is trusted is not limited."""
    category = np.array([1] * 600 + [0] * 300)
    key = np.array([0] * 99 + [UNLIMITED] * 396 + [1] * 60 + [2] * 40 + [3] * 5 + [4] * 300)
    log = SimpleNamespace(categories=ROWS, category=category, key=key)
    assert weighty_keys(log, (MOVE,)).tolist() == [0, 1, 2]


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
    assert untouched.newest.mass.tolist() == [7, 7, 7]
    asked = {"guessed": np.array([0, 2, 0], np.float32), "mass": np.array([1, 8, 1], np.float32)}
    made = renewed(known, ("left", "right"), SimpleNamespace(matrix=replace(newer, **asked), outcomes=now.outcomes))
    assert made.matrix.is_guess.tolist() == [False, True, False]
    assert (made.matrix.mass.tolist(), made.newest.mass.tolist()) == ([7, 7, 7], [1, 8, 1])


@pytest.mark.parametrize(
    ("kind", "rows", "is_able"), [("map", "ab", True), ("map", "ba", False), ("soft_map", "ab", False)]
)
def test_evidence_whose_rows_are_in_another_order_renews_nothing(kind, rows, is_able):
    manifest = SimpleNamespace(scorer=SimpleNamespace(kind=kind), categories=("a", "b"))
    assert can_renew(SimpleNamespace(manifest=manifest), tuple(rows)) is is_able
