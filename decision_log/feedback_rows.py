"""One piece of feedback to SQL: again is harmless, and a key that says too much is refused."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select

from decision_log.feedback_types import DocumentFeedback, Feedback, FeedbackStatus
from decision_log.tables import DOCUMENT_FEEDBACK, FEEDBACK
from router.feedback_config import FeedbackConfig

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

HOUR_S = 3600.0
KEY_LOCK = 0x636F6666  # "coff", for Postgres's advisory locks


def keep_feedback(
    connection: Connection, insert: Any, feedback: Feedback | DocumentFeedback, caps: FeedbackConfig
) -> FeedbackStatus:
    """Keeps it under decision, kind or document, and key: a repeated post changes nothing, another value replaces the
    earlier one. Call it under `decision_log.tombstones.lock`.

    Args:
        insert: the dialect's INSERT.
        caps: in an hour, a key has one for answers and one for documents; in a decision, one for kinds.
    """
    of_document = isinstance(feedback, DocumentFeedback)
    table, subject = (DOCUMENT_FEEDBACK, "document_id") if of_document else (FEEDBACK, "kind")
    row = feedback.model_dump(mode="json") | {"key_id": feedback.key_id or ""}
    hold_key(connection, row["key_id"])
    is_mine = and_(table.c.decision_id == feedback.decision_id, table.c.key_id == row["key_id"])
    said = {name: value for name, value in connection.execute(select(table.c[subject], table.c.value).where(is_mine))}
    if row[subject] in said:
        if said[row[subject]] == feedback.value:
            return FeedbackStatus.REPEATED
        earlier = table.update().where(is_mine, table.c[subject] == row[subject])
        connection.execute(earlier.values(value=feedback.value, at=feedback.at))
        return FeedbackStatus.REPLACED
    if not of_document and len(said) >= caps.max_per_decision:
        return FeedbackStatus.OVER_DECISION
    lately = and_(table.c.key_id == row["key_id"], table.c.at > feedback.at - HOUR_S)
    if connection.execute(select(func.count()).select_from(table).where(lately)).scalar_one() >= caps.max_per_hour:
        return FeedbackStatus.OVER_HOUR
    connection.execute(insert(table).values(**row))
    return FeedbackStatus.ACCEPTED


def hold_key(connection: Connection, key_id: str) -> None:
    """Keeps others from adding feedback of that key until the transaction ends, so that the caps are exact."""
    if connection.dialect.name != "sqlite":  # which has one writer at a time anyway
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({KEY_LOCK}, {zlib.crc32(key_id.encode()) >> 1})")
