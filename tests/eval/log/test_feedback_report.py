"""What feedback says on a log that a gateway's store wrote."""

import pytest

from coe.base.errors import DataError
from coe.decision_log.database import Database
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.feedback_types import Feedback, FeedbackKind, JudgedAnswer
from coe.eval.log.feedback_report import feedback_report
from coe.training.log_table import read_log_table
from tests.training.log_records import record


@pytest.fixture
def folder(tmp_path):
    """400 answers. Code is liked and rarely spoken of, facts are disliked and often; what was cut off is disliked."""
    store = Database(f"sqlite:///{tmp_path / 'coe.db'}")
    rows = [record(seq, ("code", "facts")[seq % 2]) for seq in range(400)]
    cut = {seq for seq in range(400) if seq % 10 in (3, 4)}
    store.write_decisions([r.model_copy(update={"finish_reason": "length"}) if r.seq in cut else r for r in rows])
    store.write_decisions(
        [
            record(900, decision=None),  # none of these is the router's own answer
            record(901, served_expert="right"),
            record(902, state=TerminalState.UPSTREAM_ERROR),
            record(903, state=TerminalState.CLIENT_GONE, ttft_ms=1.0),  # but this one, aborted, is
        ]
    )
    for seq in range(400):
        if seq % 2 == 1 or seq % 8 == 0 or seq % 8 == 4:
            value = 0.0 if seq in cut else float(seq % 2 == 0)
            store.put_feedback(thumb(seq, value))
    store.put_feedback(thumb(2, 0.0, key_id="spam"))
    store.close()
    return tmp_path


def thumb(seq: int, value: float, key_id: str | None = None) -> Feedback:
    return Feedback(decision_id=f"d{seq}", kind=FeedbackKind.THUMB, value=value, at=500.0, key_id=key_id)


def test_the_report(folder):
    report = feedback_report(f"sqlite:///{folder / 'coe.db'}", key_weights={"spam": 0.0})
    assert [(kind.name, kind.pieces) for kind in report.kinds] == [("thumb", 301)]
    assert [(key.name, key.pieces, key.weight) for key in report.keys] == [("-", 300, 1.0), ("spam", 1, 0.0)]
    signals = {each.kind.value: each for each in report.signals}
    assert (signals["aborted"].answers, signals["aborted"].with_feedback) == (1, 0)
    assert (signals["cut_off"].answers, signals["cut_off"].mean_with) == (80, 0.0)
    assert signals["cut_off"].verdict == "agrees"
    assert "needs 20 answers" in signals["reasked"].verdict


def test_a_judge_is_compared_with_people(folder):
    """It grades every third answer, by the thumb where there is one."""
    store = Database(f"sqlite:///{folder / 'coe.db'}")
    liked = {kept.decision_id: kept.value for seq in range(400) for kept in store.get_feedback(f"d{seq}")}
    for number, seq in enumerate(range(0, 400, 3)):
        said = liked.get(f"d{seq}")
        grade = 0.5 if said is None else (0.9 if said else 0.2) + 0.01 * (number % 3)
        one = JudgedAnswer(decision_id=f"d{seq}", judge="wise", rubric="r1", expert="left", value=grade, at=600.0)
        other = one.model_copy(update={"expert": "right", "value": 0.1})  # a shadow answer, which nobody saw
        pair = one.model_copy(update={"other": "right", "value": 1.0, "is_consistent": number % 4 > 0})
        store.put_judgements([one, other, pair])
    store.close()
    (judge,) = feedback_report(f"sqlite:///{folder / 'coe.db'}").judges
    assert (judge.judge, judge.grades, judge.pairs, judge.consistent) == ("wise", 134, 134, 100)
    assert 60 < judge.with_feedback < 134
    assert judge.correlation.value > 0.99
    assert judge.correlation.interval.low > 0.95
    assert feedback_report(f"sqlite:///{folder / 'coe.db'}", until=0.0).judges == ()


@pytest.mark.parametrize(
    ("n", "sign", "pairs"), [(200, 1.0, 200), (200, -1.0, 0), (200, 0.0, 0), (20, 1.0, 0)], ids=str
)
def test_pairs_are_learned_from_once_a_judges_grades_follow_what_people_say(folder, n, sign, pairs):
    """Of 20 answers that it graded 15 have feedback, and 20 are asked for."""
    url = f"sqlite:///{folder / 'coe.db'}"
    store = Database(url)
    liked = {f"d{seq}": kept.value for seq in range(n) for kept in store.get_feedback(f"d{seq}")}
    for seq in range(n):
        grade = 0.5 + sign * (liked.get(f"d{seq}", 0.5) - 0.5) / 2 + 0.01 * (seq % 3)
        one = JudgedAnswer(decision_id=f"d{seq}", judge="wise", rubric="r1", expert="left", value=grade, at=600.0)
        store.put_judgements([one, one.model_copy(update={"other": "right", "value": 1.0, "is_consistent": True})])
    of = JudgedAnswer(decision_id="d0", judge="wise", rubric="r2", expert="left", value=0.5, at=600.0)
    store.put_judgements([of, of.model_copy(update={"other": "right"})])  # a rubric of its own, trusted in no case
    store.close()
    log = read_log_table(url)
    assert (0 if log.judged is None else len(log.judged)) == 2 * pairs
    left_out = "pairs that wise compared, whose grades do not surely follow what people say"
    assert log.dropped.get(left_out, 0) == n - pairs + 1


def test_feedback_of_another_time_is_left_out(folder):
    url = f"sqlite:///{folder / 'coe.db'}"
    assert feedback_report(url, since=501.0).kinds == ()
    assert feedback_report(url, until=500.0).kinds == ()
    assert {each.answers for each in feedback_report(url, since=1.6e9).signals} == {0}
    with pytest.raises(DataError, match="there is no decision log"):
        feedback_report(f"sqlite:///{folder / 'nowhere.db'}")
