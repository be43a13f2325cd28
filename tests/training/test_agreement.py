"""Agreement between experts moves what is known of experts, beside grades and feedback, and never alone."""

from __future__ import annotations

import numpy as np
import pytest

from decision_log.decision_record import AskedExpert, CallState, DecisionRecord, StrategyTrace
from tests.training.log_records import record
from training.agreement import Anchors, agreed_cells, agreement_cells, beliefs
from training.change_points import ChangePoint
from training.log_table import collect
from training.types import NO_ANSWER, NOT_COMPARED

ROWS, EXPERTS = ("topic", "general"), ("a", "b", "c")
RNG = np.random.default_rng(5)
N = 400
QUALITY = np.array([0.9, 0.6, 0.3])


def drawn(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, 3) of the three accuracies, errors independent, and answers: 0 is right, others are one of 9."""
    scores = (RNG.random((n, 3)) < QUALITY).astype(np.float64)
    return scores, np.where(scores > 0, 0, RNG.integers(1, 10, (n, 3)))


def cells(keys: np.ndarray, anchors: Anchors, reward: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
    nothing = np.full(len(keys), np.nan)
    zeros = np.zeros(len(keys), dtype=np.int64)
    return agreement_cells(keys, zeros, zeros, nothing if reward is None else reward, anchors)


def anchored(quality: float, count: float) -> Anchors:
    return Anchors(np.full((2, 3), quality), np.array([[count] * 3, [0.0] * 3]))


def test_agreement_finds_who_is_better_where_grades_say_all_are_equal() -> None:
    scores, keys = drawn()
    sums, _, counts = cells(keys, anchored(0.6, 20.0))
    means = sums[0] / counts[0]
    assert means[0] > means[1] > means[2]
    assert means - means.mean() == pytest.approx(scores.mean(axis=0) - scores.mean(), abs=0.1)


def test_no_cell_counts_for_more_than_what_is_known_of_it_otherwise() -> None:
    _, keys = drawn()
    for count in (0.0, 4.0, 20.0, 10_000.0):
        counts = cells(keys, anchored(0.6, count))[2]
        assert counts[0] == pytest.approx([min(count, N) if count >= 5 else 0.0] * 3)
        assert counts[1].sum() == 0


def test_an_expert_that_nothing_is_known_of_neither_vouches_nor_learns() -> None:
    _, keys = drawn()
    anchors = Anchors(np.array([[0.6, 0.6, 0.0], [0.6, 0.6, 0.0]]), np.array([[20.0, 20.0, 0.0], [0.0, 0.0, 0.0]]))
    with_third = cells(keys, anchors)
    keys[:, 2] = 0
    assert [part.tolist() for part in cells(keys, anchors)] == [part.tolist() for part in with_third]


def test_feedback_turns_what_agreement_says() -> None:
    keys = np.array([[0, 0, 1]])
    zeros = np.zeros(1, dtype=np.int64)
    said = {
        reward: beliefs(keys, zeros, zeros, np.array([reward]), anchored(0.5, 20.0))[0] for reward in (np.nan, 1.0, 0.0)
    }
    assert said[1.0][0] > said[np.nan][0] > said[0.0][0]
    assert said[0.0][2] > said[np.nan][2]
    assert np.isnan(beliefs(np.array([[0, NOT_COMPARED, 0]]), zeros, zeros, np.array([1.0]), anchored(0.5, 9.0))[0, 1])
    assert beliefs(np.array([[0, NO_ANSWER, 0]]), zeros, zeros, np.array([1.0]), anchored(0.5, 9.0))[0, 1] == 0


def by_several(seq: int, *answers: int | None, at: float = 1.0) -> DecisionRecord:
    """A row of `a`, `b` and `c`, of which `a` was served; a judge was asked, too."""
    calls = [AskedExpert(expert=e, state=CallState.ANSWERED, answer=n) for e, n in zip(EXPERTS, answers, strict=False)]
    judge = AskedExpert(expert="b", state=CallState.ANSWERED, answer=None, is_judge=True)
    trace = StrategyTrace(name="vote", is_settled=True, agreed=1, calls=(*calls, judge))
    plain = record(seq)
    decision = plain.decision.model_copy(update={"category": "topic"})
    return plain.model_copy(update={"strategy": trace, "served_expert": "a", "at": at, "decision": decision})


def test_rows_of_several_experts_are_kept_apart_from_rewards() -> None:
    log = collect([by_several(0, 0, 0, 1), by_several(1, 0, None), by_several(2, 0), record(3)], {"d0": 1.0, "d3": 1.0})
    assert len(log) == 1
    panels = log.panels
    assert len(panels) == 2
    assert panels.keys(EXPERTS).tolist() == [[0, 0, 1], [0, NO_ANSWER, NOT_COMPARED]]
    assert panels.keys(("c", "a")).tolist() == [[1, 0], [NOT_COMPARED, 0]]
    assert panels.row_in(("other", "general")).tolist() == [1, 1]
    assert list(panels.served) == [0, 0]
    assert np.array_equal(panels.reward, [1.0, np.nan], equal_nan=True)


def test_answers_of_before_a_change_say_nothing_of_the_expert_of_today() -> None:
    log = collect([by_several(i, 0, 0, 1, at=float(i)) for i in range(10)], {})
    change = ChangePoint("topic", "c", 5.0, 0.9, 0.1)
    counts = agreed_cells(log.panels, ROWS, EXPERTS, anchored(0.5, 100.0), (change,))[2]
    assert counts[0].tolist() == [10.0, 10.0, 5.0]
