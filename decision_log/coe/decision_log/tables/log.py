"""Tables of decisions, feedback, judgements, replicas, erasures and router events."""

from sqlalchemy import Index, UniqueConstraint
from sqlmodel import Relationship

from coe.decision_log.tables.base import Large, NumberKey, OptionalString, RealKey, Row, String, TextKey

FILTERED = ("expert", "category", "state", "router_version", "policy", "is_fallback", "is_probe")
"""Columns that lists of decisions are filtered by."""


class DecisionRow(Row, table=True):
    """A decision. `record` is the DecisionRecord as JSON without `embedding`; the other columns are for selecting."""

    __tablename__ = "decisions"
    __table_args__ = (
        Index("decisions_at", "at"),
        Index("decisions_session", "session_id", "at"),
        # Lists find in it all that they filter by. An index for each filter made a rare value's first page 20 times
        # faster among 300,000 decisions, and each record's writing 4 to 15% dearer.
        Index("decisions_tenant", "tenant", "at", *FILTERED),
    )

    decision_id: TextKey
    at: float
    replica: String
    seq: int
    state: String
    expert: OptionalString  # which answered, or was chosen if none did
    category: OptionalString
    reason: OptionalString
    router_version: OptionalString
    policy: OptionalString
    is_fallback: bool | None
    is_probe: bool
    tenant: String  # '' without keys
    record: String
    session_id: OptionalString
    text_hash: OptionalString  # NULL of what an agent continues: nobody asked again
    embedding: bytes | None  # half precision, little-endian
    encoder_fingerprint: OptionalString

    feedback: list["FeedbackRow"] = Relationship(
        # No foreign key: feedback may be written before its decision.
        sa_relationship_kwargs={
            "primaryjoin": "DecisionRow.decision_id == foreign(FeedbackRow.decision_id)",
            "viewonly": True,
        }
    )


class SpendRow(Row, table=True):
    """Sums over a key's decisions ('' without key) in a slot of `spend.SLOT_S`; `decisions` includes rejected ones."""

    __tablename__ = "spend"

    slot: NumberKey
    key_id: TextKey
    decisions: int
    requests: int
    prompt_tokens: Large
    cached_tokens: Large
    cache_write_tokens: Large
    completion_tokens: Large
    cost_usd: float


class FeedbackRow(Row, table=True):
    """Feedback on a decision. `key_id` is '' for a client without a key: NULLs would escape the constraint."""

    __tablename__ = "feedback"
    __table_args__ = (
        UniqueConstraint("decision_id", "kind", "key_id"),
        Index("feedback_key", "key_id", "at"),
        Index("feedback_value", "value"),
    )

    id: NumberKey
    decision_id: String
    kind: String
    value: float
    at: float
    key_id: String


class DocumentFeedbackRow(Row, table=True):
    """A client's judgement of a document of an answer: 1 opened or cited, 0 rejected."""

    __tablename__ = "document_feedback"
    __table_args__ = (
        UniqueConstraint("decision_id", "document_id", "key_id"),
        Index("document_feedback_key", "key_id", "at"),
    )

    id: NumberKey
    decision_id: String
    document_id: String
    value: float
    at: float
    key_id: String


class JudgementRow(Row, table=True):
    """A judge's judgement of an answer. `other` is the expert whose answer it was compared with, or '' for a grade."""

    __tablename__ = "judgements"

    decision_id: TextKey
    judge: TextKey
    rubric: TextKey
    expert: TextKey
    other: TextKey
    value: float
    is_consistent: bool | None
    at: float


class ReplicaRow(Row, table=True):
    """A replica: a run of a gateway process, which numbered its decisions 0 to `decisions` - 1."""

    __tablename__ = "replicas"

    replica: TextKey
    decisions: int
    settled: int
    state: String
    at: float


class RemovedRow(Row, table=True):
    """A range of decision numbers that were removed on purpose, first and last included, so that it is no gap."""

    __tablename__ = "removed"

    replica: TextKey
    first_seq: NumberKey
    last_seq: NumberKey
    reason: String
    at: float


class ErasureRow(Row, table=True):
    """The hash of a subject whose decisions up to `at` must not be in the database, however late they arrive."""

    __tablename__ = "erasures"

    subject: TextKey
    at: float


class RouterEventRow(Row, table=True):
    """An event (promoted, canary, withdrawn) of a router version, stored once; `at` is the Unix time in `live.json`."""

    __tablename__ = "router_events"

    at: RealKey
    version: TextKey
    event: TextKey
    detail: String


class RetrainTurnRow(Row, table=True):
    """The retrain lease, in one row: the number of the last one, and the Unix time until which its holder has it."""

    __tablename__ = "retrain_turns"

    number: NumberKey
    until: float
