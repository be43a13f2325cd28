"""Implicit signals: acts of clients that may say something of an answer, found while decisions are written to SQL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from coe.decision_log.decision_record import TerminalState
from coe.decision_log.feedback_types import ImplicitKind, ImplicitSignal
from coe.decision_log.payloads import RecordPart
from coe.decision_log.sql_engine import in_parts
from coe.decision_log.tables import SIGNALS

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Row

REASKED_WITHIN_S = 600.0
"""Ten minutes: later the same words are a new wish rather than a complaint (ours)."""

CAME_AGAIN = """
WITH asked (decision_id, session_id, text_hash) AS (VALUES ROWS)
SELECT asked.session_id, asked.text_hash FROM asked WHERE EXISTS (
  SELECT 1 FROM decisions AS d
  WHERE d.session_id = asked.session_id AND d.at BETWEEN ? AND ?
    AND d.text_hash = asked.text_hash AND d.decision_id <> asked.decision_id)
"""
"""ROWS: three placeholders for each ask; then the times from and to. Few asks have another row, so that is looked for
first: to look at all rows around each ask takes four times as long."""

NEAREST = """
SELECT d.decision_id, d.session_id, d.text_hash, d.at FROM asked JOIN decisions AS d ON d.decision_id = (
  SELECT o.decision_id FROM decisions AS o
  WHERE o.session_id = asked.session_id AND o.text_hash = asked.text_hash AND {span}
  ORDER BY {order} LIMIT 1)
"""

ROWS_AROUND = f"""
WITH asked (session_id, text_hash) AS (VALUES ROWS)
SELECT d.decision_id, d.session_id, d.text_hash, d.at FROM asked JOIN decisions AS d
  ON d.session_id = asked.session_id AND d.text_hash = asked.text_hash AND d.at BETWEEN ? AND ?
UNION ALL
{NEAREST.format(span="o.at >= ? AND o.at < ?", order="o.at DESC, o.decision_id DESC")}
UNION ALL
{NEAREST.format(span="o.at > ? AND o.at <= ?", order="o.at, o.decision_id")}
"""
"""ROWS: one pair of placeholders for each ask; then of each of the three parts the times from and to."""


def note_signals(connection: Connection, insert: Any, records: Sequence[RecordPart]) -> None:
    """Keeps the signals of decisions that are in the database now; again is harmless.

    Args:
        insert: the dialect's INSERT.
    """
    signals = [signal for record in records for signal in own_signals(record)]
    signals += reasked_signals(connection, records)
    if signals:
        rows = [signal.model_dump(mode="json") for signal in signals]
        connection.execute(insert(SIGNALS).on_conflict_do_nothing(), rows)


def own_signals(record: RecordPart) -> Iterator[ImplicitSignal]:
    """Signals that the record itself holds."""
    ended_at = record.at + record.latency_ms / 1e3
    if record.state == TerminalState.CLIENT_GONE and record.ttft_ms is not None:
        yield ImplicitSignal(decision_id=record.decision_id, kind=ImplicitKind.ABORTED, at=ended_at)
    if record.state == TerminalState.ANSWERED and record.finish_reason == "length":
        yield ImplicitSignal(decision_id=record.decision_id, kind=ImplicitKind.CUT_OFF, at=ended_at)


def reasked_signals(connection: Connection, records: Sequence[RecordPart]) -> list[ImplicitSignal]:
    """A signal for every decision whose ask came again soon, in whichever order the rows arrive.

    Asks are the same when their keyed hashes are, so privacy level `none` gives no such signal.
    """
    told = [record for record in records if record.session_id is not None and record.text_hash is not None]
    asked = [record for record in told if not record.in_tool_loop]
    if not asked:
        return []
    rows = sorted(rows_around(connection, asked), key=attrgetter("session_id", "text_hash", "at", "decision_id"))
    return [
        ImplicitSignal(decision_id=before.decision_id, kind=ImplicitKind.REASKED, at=after.at)
        for before, after in pairwise(rows)
        if (before.session_id, before.text_hash) == (after.session_id, after.text_hash)
        and after.at - before.at <= REASKED_WITHIN_S
    ]


def rows_around(connection: Connection, asked: Sequence[RecordPart]) -> list[Row[Any]]:
    """The rows of the same asks in the time of these, and of each ask the last one before and the first one after. (All
    rows of ten minutes would be as well, and too many where one session asks the same all the time.) Asks without
    another row in the ten minutes around these are left out.

    As text: SQLAlchemy took three times as long to compile the same as a union than the database takes to answer it.
    """
    first, last = min(record.at for record in asked), max(record.at for record in asked)
    asks = sorted((record.decision_id, record.session_id, record.text_hash) for record in asked)
    again = rows_of(connection, CAME_AGAIN, asks, (first - REASKED_WITHIN_S, last + REASKED_WITHIN_S))
    spans = ((first, last), (first - REASKED_WITHIN_S, first), (last, last + REASKED_WITHIN_S))
    return rows_of(connection, ROWS_AROUND, sorted({tuple(row) for row in again}), list(chain.from_iterable(spans)))


def rows_of(
    connection: Connection, query: str, given: Sequence[tuple[object, ...]], rest: Sequence[object]
) -> list[Row[Any]]:
    """The rows that a query finds for the values of `ROWS`, some at a time, and the `rest` of its values."""
    found: list[Row[Any]] = []
    for part in in_parts(given):
        places = ", ".join(["?"] * len(part[0]))
        statement = query.replace("ROWS", ", ".join([f"({places})"] * len(part)))
        if connection.dialect.paramstyle != "qmark":
            statement = statement.replace("?", "%s")
        found += connection.exec_driver_sql(statement, (*chain.from_iterable(part), *rest)).all()
    return found
