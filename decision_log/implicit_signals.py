"""What clients did that may say something of an answer: found while decisions are written to SQL, kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, union_all

from decision_log.tables import DECISIONS, SIGNALS
from router.types import DecisionRecord, ImplicitKind, ImplicitSignal, TerminalState

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

REASKED_WITHIN_S = 600.0
"""Ten minutes: later the same words are a new wish rather than a complaint (ours)."""

MAX_PARTS = 200
"""Queries in one statement: SQLite takes 500 and 32,766 values, of which each has five."""


def note_signals(connection: Connection, insert: Any, records: Sequence[DecisionRecord]) -> None:
    """Keeps the signals of decisions that were just written; again is harmless.

    Args:
        insert: the dialect's INSERT.
    """
    signals = [signal for record in records for signal in own_signals(record)]
    signals += reasked_signals(connection, records)
    if signals:
        rows = [signal.model_dump(mode="json") for signal in signals]
        connection.execute(insert(SIGNALS).on_conflict_do_nothing(), rows)


def own_signals(record: DecisionRecord) -> Iterator[ImplicitSignal]:
    """Signals that stand in the record itself."""
    ended_at = record.at + record.latency_ms / 1e3
    if record.state is TerminalState.CLIENT_GONE and record.ttft_ms is not None:
        yield ImplicitSignal(decision_id=record.decision_id, kind=ImplicitKind.ABORTED, at=ended_at)
    if record.state is TerminalState.ANSWERED and record.finish_reason == "length":
        yield ImplicitSignal(decision_id=record.decision_id, kind=ImplicitKind.CUT_OFF, at=ended_at)


def reasked_signals(connection: Connection, records: Sequence[DecisionRecord]) -> list[ImplicitSignal]:
    """A signal for every decision whose ask came again soon, in whichever order the rows arrive.

    Asks are the same when their keyed hashes are, so privacy level `none` gives no such signal.
    """
    asked = [record for record in records if record.session_id is not None and record.text_hash is not None]
    if not asked:
        return []
    rows = sorted(rows_around(connection, asked), key=attrgetter("session_id", "text_hash", "at", "decision_id"))
    return [
        ImplicitSignal(decision_id=before.decision_id, kind=ImplicitKind.REASKED, at=after.at)
        for before, after in pairwise(rows)
        if (before.session_id, before.text_hash) == (after.session_id, after.text_hash)
        and after.at - before.at <= REASKED_WITHIN_S
    ]


def rows_around(connection: Connection, asked: Sequence[DecisionRecord]) -> list[Any]:
    """The rows of the same asks in the time of these, and of each ask the last one before and the first one after. (All
    rows of ten minutes would be as well, and too many where one session asks the same all the time.)"""
    first, last = min(record.at for record in asked), max(record.at for record in asked)
    groups = sorted({(str(record.session_id), str(record.text_hash)) for record in asked})
    at = DECISIONS.c.at
    columns = select(DECISIONS.c.decision_id, DECISIONS.c.session_id, DECISIONS.c.text_hash, at)
    during = columns.where(
        DECISIONS.c.session_id.in_(sorted({session for session, _ in groups})),
        DECISIONS.c.text_hash.in_(sorted({text for _, text in groups})),
        at.between(first, last),
    )
    around = [
        query.limit(1).subquery().select()
        for session, text in groups
        for same in [columns.where(DECISIONS.c.session_id == session, DECISIONS.c.text_hash == text)]
        for query in (
            same.where(at < first, at >= first - REASKED_WITHIN_S).order_by(at.desc(), DECISIONS.c.decision_id.desc()),
            same.where(at > last, at <= last + REASKED_WITHIN_S).order_by(at, DECISIONS.c.decision_id),
        )
    ]
    parts = (around[start : start + MAX_PARTS] for start in range(0, len(around), MAX_PARTS))
    return [row for part in ([during], *parts) for row in connection.execute(union_all(*part))]
