"""The tables of the database."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import NoneType
from typing import Any, get_args, get_type_hints

from sqlalchemy import Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

from decision_log.feedback_types import ImplicitSignal, JudgedAnswer
from decision_log.replica_status import ReplicaStatus

SCHEMA_VERSION = 1
"""Of the tables. A change that older or newer programs could not read raises it."""

METADATA = MetaData()
TYPES = {str: Text, float: Float, int: Integer, bool: Boolean, bytes: LargeBinary}


def table(
    name: str,
    columns: Mapping[str, Any],
    *more: Index | UniqueConstraint,
    keys: tuple[str, ...],
    defaults: Mapping[str, object] | None = None,
) -> Table:
    """A table by the Python types of its columns; one that may be None may be NULL.

    Args:
        keys: columns of the primary key.
        defaults: values in rows that leave a column out.
    """
    made: list[Column[Any]] = []
    for column, kind in columns.items():
        kinds = get_args(kind) or (kind,)
        of_sql = Text if issubclass(kinds[0], StrEnum) else TYPES[kinds[0]]
        default, is_optional = (defaults or {}).get(column), NoneType in kinds
        made.append(Column(column, of_sql, primary_key=column in keys, nullable=is_optional, default=default))
    return Table(name, METADATA, *made, *more)


def fields_of(record: type) -> dict[str, Any]:
    """Types of a record's own fields by name: the columns of the table that keeps it."""
    hints = get_type_hints(record)
    return {name: hints[name] for name in record.__annotations__}


SCHEMA = table("coe_schema", {"version": int}, keys=("version",))
"""The version of all tables: `SCHEMA_VERSION` of the coe that made them."""

DECISIONS = table(
    "decisions",
    {
        "decision_id": str,
        "at": float,
        "replica": str,
        "seq": int,
        "state": str,
        "expert": str | None,  # which answered, or was chosen if none did
        "category": str | None,
        "router_version": str | None,
        "record": str,
        "session_id": str | None,
        "text_hash": str | None,
        "embedding": bytes | None,  # half precision, little-endian
        "encoder_fingerprint": str | None,
    },
    Index("decisions_at", "at"),
    Index("decisions_session", "session_id", "at"),
    keys=("decision_id",),
)
"""One decision; `record` is the DecisionRecord as JSON without its embedding; the other columns are for selecting."""

FEEDBACK = table(
    "feedback",
    {"id": int, "decision_id": str, "kind": str, "value": float, "at": float, "key_id": str},
    UniqueConstraint("decision_id", "kind", "key_id"),
    Index("feedback_key", "key_id", "at"),
    keys=("id",),
)
"""One sign about one decision. `key_id` is '' for a client without a key: NULLs would escape the constraint."""

DOCUMENT_FEEDBACK = table(
    "document_feedback",
    {"id": int, "decision_id": str, "document_id": str, "value": float, "at": float, "key_id": str},
    UniqueConstraint("decision_id", "document_id", "key_id"),
    Index("document_feedback_key", "key_id", "at"),
    keys=("id",),
)

SIGNALS = table("implicit_signals", fields_of(ImplicitSignal), keys=("decision_id", "kind"))
"""Never mixed with feedback."""

JUDGEMENTS = table("judgements", fields_of(JudgedAnswer), keys=("decision_id", "judge", "rubric", "expert", "other"))
REPLICAS = table("replicas", fields_of(ReplicaStatus), keys=("replica",))

REMOVED = table(
    "removed",
    {"replica": str, "first_seq": int, "last_seq": int, "reason": str, "at": float},
    keys=("replica", "first_seq", "last_seq"),
)
"""Numbers of decisions that were removed on purpose, first and last included, so that no gap is seen there."""

ERASURES = table("erasures", {"subject": str, "at": float}, keys=("subject",))
"""A subject (its hash) whose decisions up to `at` must not be in the database, however late they arrive."""

ROUTER_VERSIONS = table("router_versions", {"version": str, "created_at": str, "manifest": str}, keys=("version",))
"""A router that a gateway has served: `manifest` is its RouterManifest as JSON, with parents, data, metrics."""

ROUTER_EVENTS = table(
    "router_events", {"at": float, "version": str, "event": str, "detail": str}, keys=("at", "version", "event")
)
"""Event of a version, kept once however many gateways saw it: promoted, canary, shadow or withdrawn, at the time that
`live.json` gives, in Unix seconds."""

TABLES = [
    DECISIONS,
    FEEDBACK,
    DOCUMENT_FEEDBACK,
    SIGNALS,
    JUDGEMENTS,
    REPLICAS,
    REMOVED,
    ERASURES,
    ROUTER_VERSIONS,
    ROUTER_EVENTS,
]
