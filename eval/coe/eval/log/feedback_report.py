"""The log's feedback by kind and key, and how far signals of clients and judges agree with it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile

from sqlalchemy import Connection

from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import ImplicitKind
from coe.decision_log.read import (
    count_feedback,
    count_swapped_pairs,
    implicit_kinds,
    read_judged_grades,
    read_reasked,
    read_records,
    read_rewards,
    why_dropped,
)
from coe.decision_log.sql_engine import open_log
from coe.router.types import Record
from coe.training.feedback_bias import JudgeAgreement, Replies, SignalAgreement, judge_agreements


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


class FeedbackReport(Record):
    """What was said, by kind and key, and who else agrees with it."""

    kinds: tuple[KindCount, ...]
    keys: tuple[KeyCount, ...]
    signals: tuple[SignalAgreement, ...]
    judges: tuple[JudgeAgreement, ...]


def gather(
    records: Iterable[DecisionRecord],
    rewards: Mapping[str, float],
    reasked: Collection[str],
) -> Replies:
    """Answers that the router chose the expert of, in the order of the log.

    A client that left in the middle has not been answered; its signal counts only with feedback.

    Args:
        reasked: as `read_reasked` gives it.
    """
    replies = Replies()
    for record in records:
        shown = implicit_kinds(record, reasked)
        is_aborted = ImplicitKind.ABORTED in shown
        if record.decision and (is_aborted or why_dropped(record, rewards) in (None, "no feedback")):
            replies.add(record.decision, shown, rewards.get(record.decision_id))
    return replies


def feedback_report(
    database_url: str, *, since: float = 0.0, until: float = math.inf, key_weights: Mapping[str, float] | None = None
) -> FeedbackReport:
    """Reads the feedback on decisions with since <= at < until (Unix seconds) from SQL.

    Args:
        key_weights: key id -> how much its feedback counts; 1 where not named.

    Raises:
        DataError, StoreError: the database cannot be read.
    """
    with open_log(database_url) as connection:
        rewards = read_rewards(connection, key_weights)
        records = takewhile(lambda record: record.at < until, read_records(connection, since))
        replies = gather(records, rewards, read_reasked(connection))
        kinds, keys = given(connection, since, until, key_weights or {})
        grades, swapped = read_judged_grades(connection, since, until), count_swapped_pairs(connection, since, until)
        judges = judge_agreements(grades, swapped, rewards)
    return FeedbackReport(kinds=kinds, keys=keys, signals=tuple(replies.agreements().values()), judges=judges)


def given(
    connection: Connection, since: float, until: float, key_weights: Mapping[str, float]
) -> tuple[tuple[KindCount, ...], tuple[KeyCount, ...]]:
    """Pieces of feedback by kind and by key, most first."""
    by_kind, by_key = (count_feedback(connection, since, until, by) for by in ("kind", "key_id"))
    kinds = tuple(KindCount(kind=kind, pieces=pieces, mean=mean) for kind, pieces, mean in by_kind)
    total = sum(each.pieces for each in kinds)
    keys = tuple(
        KeyCount(
            key_id=key_id or "-", pieces=pieces, share=pieces / total, mean=mean, weight=key_weights.get(key_id, 1.0)
        )
        for key_id, pieces, mean in by_key
    )
    return kinds, keys
