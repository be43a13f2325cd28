"""Decisions that must no longer be in the database, however late one arrives."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import delete, select
from sqlmodel import col

from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.payloads import RecordPart
from coe.decision_log.ranges import ranges_of
from coe.decision_log.spend import forget_spend
from coe.decision_log.sql_engine import hold
from coe.decision_log.tables.log import (
    DecisionRow,
    DocumentFeedbackRow,
    ErasureRow,
    FeedbackRow,
    JudgementRow,
    RemovedRow,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

Erasable = TypeVar("Erasable", DecisionRecord, RecordPart)

LOCK_NUMBER = 0x636F65  # "coe", for Postgres's advisory locks


def subject_hash(subject: str) -> str:
    """Return the trace of an erased subject: SHA-256 in hexadecimal."""
    return hashlib.sha256(subject.encode()).hexdigest()


def lock(connection: Connection, *, for_erasure: bool) -> None:
    """Lock until the transaction ends: writers of decisions and an erasure exclude each other."""
    hold(connection, LOCK_NUMBER, is_shared=not for_erasure)


def erased_among(connection: Connection, records: Sequence[Erasable]) -> list[Erasable]:
    """Return the records of a subject that was erased after they were made."""
    if not records:
        return []
    # Hardly ever has any come since, so that hardly ever a subject is hashed.
    query = select(col(ErasureRow.subject), col(ErasureRow.at)).where(
        col(ErasureRow.at) >= min(record.at for record in records)
    )
    erased = {row.subject: row.at for row in connection.execute(query)}
    return [record for record in records if is_erased(record, erased)] if erased else []


def is_erased(record: DecisionRecord | RecordPart, erased: Mapping[str, float]) -> bool:
    """Return whether a record is older than the erasure of one of its subjects, given as hash -> Unix time."""
    subjects = filter(None, (record.key_id, record.session_id, record.text_hash))
    return any(record.at <= erased.get(subject_hash(subject), float("-inf")) for subject in subjects)


def note_removed(
    connection: Connection, insert: Any, numbers: Iterable[tuple[str, int]], *, reason: str, at: float
) -> None:
    """Record numbers (replica, seq) as removed on purpose.

    Args:
        insert: the dialect's INSERT.
    """
    seqs_of: dict[str, list[int]] = {}
    for replica, seq in numbers:
        seqs_of.setdefault(replica, []).append(seq)
    rows = [
        {"replica": replica, "first_seq": each.start, "last_seq": each.stop - 1, "reason": reason, "at": at}
        for replica, seqs in seqs_of.items()
        for each in ranges_of(seqs)
    ]
    if rows:
        connection.execute(insert(RemovedRow).on_conflict_do_nothing(), rows)


def delete_of(connection: Connection, insert: Any, decision_ids: Sequence[str]) -> int:
    """Delete decisions with all feedback and judgements; return the number of pieces of feedback.

    Args:
        insert: the dialect's INSERT.
    """
    connection.execute(delete(JudgementRow).where(col(JudgementRow.decision_id).in_(decision_ids)))
    forget_spend(connection, insert, decision_ids)
    feedback = 0
    for table in (FeedbackRow.__table__, DocumentFeedbackRow.__table__):
        feedback += connection.execute(delete(table).where(table.c.decision_id.in_(decision_ids))).rowcount
    connection.execute(delete(DecisionRow).where(col(DecisionRow.decision_id).in_(decision_ids)))
    return feedback
