"""What clients did that may say something of an answer: found while decisions are written to SQL, kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from gateway.tables import DECISIONS, SIGNALS
from router.types import DecisionRecord, ImplicitKind, ImplicitSignal, TerminalState

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

REASKED_WITHIN_S = 600.0
"""Ten minutes: later the same words are a new wish rather than a complaint (ours)."""


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
    times = [record.at for record in asked]
    query = (
        select(DECISIONS.c.decision_id, DECISIONS.c.session_id, DECISIONS.c.text_hash, DECISIONS.c.at)
        .where(DECISIONS.c.session_id.in_(sorted({str(record.session_id) for record in asked})))
        .where(DECISIONS.c.at.between(min(times) - REASKED_WITHIN_S, max(times) + REASKED_WITHIN_S))
        .order_by(DECISIONS.c.session_id, DECISIONS.c.text_hash, DECISIONS.c.at, DECISIONS.c.decision_id)
    )
    rows = connection.execute(query).all()
    return [
        ImplicitSignal(decision_id=before.decision_id, kind=ImplicitKind.REASKED, at=after.at)
        for before, after in pairwise(rows)
        if (before.session_id, before.text_hash) == (after.session_id, after.text_hash)
        and before.text_hash is not None
        and after.at - before.at <= REASKED_WITHIN_S
    ]
