"""Report on the log's feedback: who gives it, the mean as given and corrected, and which signals agree with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from sqlalchemy import Connection

from decision_log.decision_record import DecisionRecord
from decision_log.feedback_types import ImplicitKind
from decision_log.read import (
    count_feedback,
    count_swapped_pairs,
    read_judged_grades,
    read_records,
    read_rewards,
    read_signals,
    why_dropped,
)
from decision_log.sql_engine import open_log
from router.types import Metric, Record
from training.feedback_bias import MIN_AGREEING, Replies, SignalAgreement, correlation, weighted_mean


class GroupReplies(Record):
    """Answers of a category by an expert; means are None without a reply."""

    category: str
    expert: str
    answers: int
    replies: int
    raw: Metric | None
    corrected: Metric | None


class KindCount(Record):
    """Pieces of feedback of one kind."""

    kind: str
    pieces: int
    mean: float


class KeyCount(Record):
    """Pieces of feedback by one key (`-` without keys), its share of all, and how much each counts in training."""

    key_id: str
    pieces: int
    share: float
    mean: float
    weight: float


class JudgeAgreement(Record):
    """Agreement of a judge's grades with what people said of the same answers, and how often it contradicted itself
    when two answers were swapped."""

    judge: str
    rubric: str
    grades: int
    mean_grade: float
    with_feedback: int
    correlation: Metric | None
    pairs: int
    consistent: int

    @property
    def name(self) -> tuple[str, str]:
        return self.judge, self.rubric

    @property
    def is_trusted(self) -> bool:
        """Its grades surely follow what people say, so `coe retrain` learns from its preferences."""
        interval = None if self.correlation is None else self.correlation.interval
        return interval is not None and self.with_feedback >= MIN_AGREEING and interval.low > 0


class FeedbackReport(Record):
    """`raw` is the mean of the replies, `corrected` that of all answers as far as replies tell."""

    answers: int
    replies: int
    raw: Metric | None
    corrected: Metric | None
    groups: tuple[GroupReplies, ...]
    kinds: tuple[KindCount, ...]
    keys: tuple[KeyCount, ...]
    signals: tuple[SignalAgreement, ...]
    judges: tuple[JudgeAgreement, ...] = ()


def gather(
    records: Iterable[DecisionRecord],
    rewards: Mapping[str, float],
    signals: Mapping[str, tuple[ImplicitKind, ...]],
) -> Replies:
    """Answers that the router chose the expert of, in the order of the log.

    A client that left in the middle has not been answered; its signal counts only with feedback.
    """
    replies = Replies()
    for record in records:
        shown = signals.get(record.decision_id, ())
        is_aborted = ImplicitKind.ABORTED in shown
        if record.decision and (is_aborted or why_dropped(record, rewards) in (None, "no feedback")):
            replies.add(record.decision, shown, rewards.get(record.decision_id))
    return replies


def feedback_report(
    database_url: str, *, since: float = 0.0, key_weights: Mapping[str, float] | None = None
) -> FeedbackReport:
    """Reads the log from SQL, a page at a time.

    Args:
        since: Unix seconds; older decisions are not read.
        key_weights: key id -> how much its feedback counts; 1 where not named.

    Raises:
        DataError, StoreError: the database cannot be read.
    """
    with open_log(database_url) as connection:
        rewards = read_rewards(connection, key_weights)
        replies = gather(read_records(connection, since), rewards, read_signals(connection))
        report = report_of(replies, *given(connection, since, key_weights or {}))
        judges = judge_agreements(connection, since, rewards)
        return report.model_copy(update={"judges": judges})


def judge_agreements(connection: Connection, since: float, rewards: Mapping[str, float]) -> tuple[JudgeAgreement, ...]:
    """Of every judge with each of its rubrics."""
    grades, pairs = read_judged_grades(connection, since), count_swapped_pairs(connection, since)
    found = []
    for (judge, rubric), of_decision in sorted(grades.items()):
        both = sorted(of_decision.keys() & rewards.keys())
        count, consistent = pairs.get((judge, rubric), (0, 0))
        found.append(
            JudgeAgreement(
                judge=judge,
                rubric=rubric,
                grades=len(of_decision),
                mean_grade=float(np.mean(list(of_decision.values()))),
                with_feedback=len(both),
                correlation=correlation(
                    np.array([of_decision[name] for name in both]), np.array([rewards[name] for name in both])
                ),
                pairs=count,
                consistent=consistent,
            )
        )
    return tuple(found)


def given(
    connection: Connection, since: float, key_weights: Mapping[str, float]
) -> tuple[tuple[KindCount, ...], tuple[KeyCount, ...]]:
    """Pieces of feedback by kind and by key, most first."""
    by_kind, by_key = (count_feedback(connection, since, by) for by in ("kind", "key_id"))
    kinds = tuple(KindCount(kind=kind, pieces=pieces, mean=mean) for kind, pieces, mean in by_kind)
    total = sum(each.pieces for each in kinds)
    keys = tuple(
        KeyCount(
            key_id=key_id or "-", pieces=pieces, share=pieces / total, mean=mean, weight=key_weights.get(key_id, 1.0)
        )
        for key_id, pieces, mean in by_key
    )
    return kinds, keys


def report_of(replies: Replies, kinds: tuple[KindCount, ...], keys: tuple[KeyCount, ...]) -> FeedbackReport:
    rates, rewards, weights = replies.rates, replies.reward_array(), replies.weights()
    rows: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for row, each in enumerate(replies.bins):
        rows[each[:2]].append(row)
    groups = [
        GroupReplies(
            category=str(group[0]),
            expert=str(group[1]),
            answers=answers,
            replies=len(rows[group]),
            raw=weighted_mean(rewards[rows[group]], np.ones(len(rows[group]))),
            corrected=weighted_mean(rewards[rows[group]], weights[rows[group]]),
        )
        for group, answers in rates.answers.most_common()
        if len(group) == 2
    ]
    return FeedbackReport(
        answers=rates.answers[()],
        replies=len(rewards),
        raw=weighted_mean(rewards, np.ones(len(rewards))),
        corrected=weighted_mean(rewards, weights),
        groups=tuple(groups),
        kinds=kinds,
        keys=keys,
        signals=tuple(replies.agreements().values()),
    )
