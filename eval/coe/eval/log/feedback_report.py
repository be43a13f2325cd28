"""The log's feedback by kind and key, and how far signals of clients and judges agree with it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from itertools import takewhile
from typing import Annotated

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
from coe.eval.report.numbers import percent
from coe.eval.report.page import InTable
from coe.router.types import Record
from coe.training.feedback_bias import JudgeAgreement, Replies, SignalAgreement, judge_agreements


class FeedbackGroup(Record):
    """The feedback of one kind or of one key (`-` without keys), and its share of all. `weight` of a key is how much
    each piece of its feedback counts in training."""

    name: str
    pieces: Annotated[int, InTable("Pieces")]
    share: Annotated[float, InTable("Share", percent)]
    mean: Annotated[float, InTable("Mean", "{:.2f}".format)]
    weight: Annotated[float | None, InTable("Weight in training", "{:g}".format)] = None


class FeedbackReport(Record):
    """The feedback by kind and key, and its agreement with signals and judges."""

    kinds: tuple[FeedbackGroup, ...]
    keys: tuple[FeedbackGroup, ...]
    signals: tuple[SignalAgreement, ...]
    judges: tuple[JudgeAgreement, ...]


def gather(
    records: Iterable[DecisionRecord],
    rewards: Mapping[str, float],
    reasked: Collection[str],
) -> Replies:
    """Collect the answers whose expert the router chose, in the order of the log.

    A client that left before the end has received no answer; its signal counts only with feedback.

    Args:
        reasked: ids of decisions that were asked again, as returned by `read_reasked`.
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
    """Read the feedback on decisions with since <= at < until (Unix seconds) from SQL.

    Args:
        key_weights: key id -> how much its feedback counts; a key without an entry counts 1.

    Raises:
        DataError, StoreError: the database cannot be read.
    """
    with open_log(database_url) as connection:
        rewards = read_rewards(connection, key_weights)
        records = takewhile(lambda record: record.at < until, read_records(connection, since))
        replies = gather(records, rewards, read_reasked(connection))
        kinds, keys = count_groups(connection, since, until, key_weights or {})
        grades, swapped = read_judged_grades(connection, since, until), count_swapped_pairs(connection, since, until)
        judges = judge_agreements(grades, swapped, rewards)
    return FeedbackReport(kinds=kinds, keys=keys, signals=tuple(replies.agreements().values()), judges=judges)


def count_groups(
    connection: Connection, since: float, until: float, key_weights: Mapping[str, float]
) -> tuple[tuple[FeedbackGroup, ...], tuple[FeedbackGroup, ...]]:
    """Count the feedback by kind and by key, most first."""
    by_kind, by_key = (count_feedback(connection, since, until, by) for by in ("kind", "key_id"))
    total = sum(pieces for _, pieces, _ in by_kind)
    kinds = [FeedbackGroup(name=kind, pieces=n, share=n / total, mean=mean) for kind, n, mean in by_kind]
    weighed = [(key or "-", key_weights.get(key, 1.0), n, mean) for key, n, mean in by_key]
    keys = [
        FeedbackGroup(name=key, pieces=n, share=n / total, mean=mean, weight=weight) for key, weight, n, mean in weighed
    ]
    return tuple(kinds), tuple(keys)
