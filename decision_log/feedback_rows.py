"""One piece of feedback to SQL: again is harmless, and a key that says too much is refused."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select

from decision_log.feedback_types import DocumentFeedback, Feedback, FeedbackStatus
from decision_log.tables import DOCUMENT_FEEDBACK, FEEDBACK
from router.feedback_config import FeedbackConfig

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.engine import Connection

HOUR_S = 3600.0
KEY_LOCK = 0x636F6666  # "coff", for Postgres's advisory locks


def keep_feedback(connection: Connection, insert: Any, feedback: Feedback, caps: FeedbackConfig) -> FeedbackStatus:
    """Keeps it under decision, kind and key: a repeated post changes nothing, another value replaces the earlier one.

    Call it under `decision_log.tombstones.lock`.

    Args:
        insert: the dialect's INSERT.
    """
    key_id = feedback.key_id or ""
    hold_key(connection, key_id)
    is_mine = and_(FEEDBACK.c.decision_id == feedback.decision_id, FEEDBACK.c.key_id == key_id)
    said = {row.kind: row.value for row in connection.execute(select(FEEDBACK.c.kind, FEEDBACK.c.value).where(is_mine))}
    kind = feedback.kind.value
    if kind in said:
        if said[kind] == feedback.value:
            return FeedbackStatus.REPEATED
        of_kind = FEEDBACK.update().where(is_mine, FEEDBACK.c.kind == kind)
        connection.execute(of_kind.values(value=feedback.value, at=feedback.at))
        return FeedbackStatus.REPLACED
    if len(said) >= caps.max_per_decision:
        return FeedbackStatus.OVER_DECISION
    return add_within_hour(connection, insert, FEEDBACK, feedback, caps)


def keep_document_feedback(
    connection: Connection, insert: Any, feedback: DocumentFeedback, caps: FeedbackConfig
) -> FeedbackStatus:
    """Keeps it under decision, document and key, as `keep_feedback` does; a key's cap in an hour is one of its own."""
    key_id, table = feedback.key_id or "", DOCUMENT_FEEDBACK
    hold_key(connection, key_id)
    is_mine = and_(
        table.c.decision_id == feedback.decision_id,
        table.c.document_id == feedback.document_id,
        table.c.key_id == key_id,
    )
    said = connection.execute(select(table.c.value).where(is_mine)).scalar_one_or_none()
    if said is not None:
        if said == feedback.value:
            return FeedbackStatus.REPEATED
        connection.execute(table.update().where(is_mine).values(value=feedback.value, at=feedback.at))
        return FeedbackStatus.REPLACED
    return add_within_hour(connection, insert, table, feedback, caps)


def add_within_hour(
    connection: Connection, insert: Any, table: Table, feedback: Feedback | DocumentFeedback, caps: FeedbackConfig
) -> FeedbackStatus:
    """Adds a row unless its key has as many from the last hour as it may."""
    key_id = feedback.key_id or ""
    lately = and_(table.c.key_id == key_id, table.c.at > feedback.at - HOUR_S)
    if connection.execute(select(func.count()).select_from(table).where(lately)).scalar_one() >= caps.max_per_hour:
        return FeedbackStatus.OVER_HOUR
    connection.execute(insert(table).values(**feedback.model_dump(mode="json", exclude={"key_id"}), key_id=key_id))
    return FeedbackStatus.ACCEPTED


def hold_key(connection: Connection, key_id: str) -> None:
    """Keeps others from adding feedback of that key until the transaction ends, so that the caps are exact."""
    if connection.dialect.name != "sqlite":  # which has one writer at a time anyway
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({KEY_LOCK}, {zlib.crc32(key_id.encode()) >> 1})")
