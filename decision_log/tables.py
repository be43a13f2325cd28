"""The tables of the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Float, Index, LargeBinary, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

if TYPE_CHECKING:
    from sqlalchemy import Table


class DecisionRow(SQLModel, table=True):
    """One decision; `record` is the DecisionRecord as JSON without its embedding, which is `embedding`; the other
    columns are for selecting."""

    __tablename__ = "decisions"
    __table_args__ = (Index("decisions_at", "at"), Index("decisions_session", "session_id", "at"))

    decision_id: str = Field(primary_key=True, sa_type=Text)
    at: float = Field(sa_type=Float)
    replica: str = Field(sa_type=Text)
    seq: int
    state: str = Field(sa_type=Text)
    expert: str | None = Field(default=None, sa_type=Text)  # which answered, or was chosen if none did
    category: str | None = Field(default=None, sa_type=Text)
    router_version: str | None = Field(default=None, sa_type=Text)
    record: str = Field(sa_type=Text)
    session_id: str | None = Field(default=None, sa_type=Text)
    text_hash: str | None = Field(default=None, sa_type=Text)
    embedding: bytes | None = Field(default=None, sa_type=LargeBinary)  # half precision, little-endian
    encoder_fingerprint: str | None = Field(default=None, sa_type=Text)


class SpendRow(SQLModel, table=True):
    """Sums over the decisions of one key ('' without one) in one slot, `decision_log.spend.SLOT_S` seconds. All but
    `decisions` are of those that were not refused."""

    __tablename__ = "spend"

    slot: int = Field(primary_key=True)
    key_id: str = Field(primary_key=True, sa_type=Text)
    decisions: int
    requests: int
    prompt_tokens: int = Field(sa_type=BigInteger)
    cached_tokens: int = Field(sa_type=BigInteger)
    cache_write_tokens: int = Field(sa_type=BigInteger)
    completion_tokens: int = Field(sa_type=BigInteger)
    cost_usd: float = Field(sa_type=Float)


class FeedbackRow(SQLModel, table=True):
    """One sign about one decision. `key_id` is '' for a client without a key: NULLs would escape the constraint."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("decision_id", "kind", "key_id"), Index("feedback_key", "key_id", "at"))

    id: int | None = Field(default=None, primary_key=True)
    decision_id: str = Field(sa_type=Text)
    kind: str = Field(sa_type=Text)
    value: float = Field(sa_type=Float)
    at: float = Field(sa_type=Float)
    key_id: str = Field(default="", sa_type=Text)


class DocumentFeedbackRow(SQLModel, table=True):
    """Judgement of one document of an answer by a client: 1 opened or cited, 0 rejected."""

    __tablename__ = "document_feedback"
    __table_args__ = (
        UniqueConstraint("decision_id", "document_id", "key_id"),
        Index("document_feedback_key", "key_id", "at"),
    )

    id: int | None = Field(default=None, primary_key=True)
    decision_id: str = Field(sa_type=Text)
    document_id: str = Field(sa_type=Text)
    value: float = Field(sa_type=Float)
    at: float = Field(sa_type=Float)
    key_id: str = Field(default="", sa_type=Text)


class SignalRow(SQLModel, table=True):
    """Implicit signal of a client about an answer, never mixed with feedback."""

    __tablename__ = "implicit_signals"

    decision_id: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(primary_key=True, sa_type=Text)
    at: float = Field(sa_type=Float)


class JudgementRow(SQLModel, table=True):
    """Judgement of an answer by a judge; `other` is '' for a grade, else the expert whose answer it was compared
    with."""

    __tablename__ = "judgements"

    decision_id: str = Field(primary_key=True, sa_type=Text)
    judge: str = Field(primary_key=True, sa_type=Text)
    rubric: str = Field(primary_key=True, sa_type=Text)
    expert: str = Field(primary_key=True, sa_type=Text)
    other: str = Field(primary_key=True, sa_type=Text)
    value: float = Field(sa_type=Float)
    is_consistent: bool | None = Field(default=None)
    at: float = Field(sa_type=Float)


class ReplicaRow(SQLModel, table=True):
    """One replica: a run of a gateway process, which numbered its decisions 0 to `decisions` - 1."""

    __tablename__ = "replicas"

    replica: str = Field(primary_key=True, sa_type=Text)
    decisions: int
    settled: int
    state: str = Field(sa_type=Text)
    at: float = Field(sa_type=Float)


class RemovedRow(SQLModel, table=True):
    """Numbers of decisions that were removed on purpose, first and last included, so that no gap is seen there."""

    __tablename__ = "removed"

    replica: str = Field(primary_key=True, sa_type=Text)
    first_seq: int = Field(primary_key=True)
    last_seq: int = Field(primary_key=True)
    reason: str = Field(sa_type=Text)
    at: float = Field(sa_type=Float)


class ErasureRow(SQLModel, table=True):
    """A subject (its hash) whose decisions up to `at` must not be in the database, however late they arrive."""

    __tablename__ = "erasures"

    subject: str = Field(primary_key=True, sa_type=Text)
    at: float = Field(sa_type=Float)


class RouterVersionRow(SQLModel, table=True):
    """A router that a gateway has served: `manifest` is its RouterManifest as JSON, with parents, data, metrics."""

    __tablename__ = "router_versions"

    version: str = Field(primary_key=True, sa_type=Text)
    created_at: str = Field(sa_type=Text)
    manifest: str = Field(sa_type=Text)


class RouterEventRow(SQLModel, table=True):
    """Event of a version, kept once however many gateways saw it; `event` is promoted, canary, shadow or withdrawn.

    `at` is the time that `live.json` gives, in Unix seconds.
    """

    __tablename__ = "router_events"

    at: float = Field(primary_key=True, sa_type=Float)
    version: str = Field(primary_key=True, sa_type=Text)
    event: str = Field(primary_key=True, sa_type=Text)
    detail: str = Field(default="", sa_type=Text)


DECISIONS: Table = SQLModel.metadata.tables["decisions"]
SPEND: Table = SQLModel.metadata.tables["spend"]
FEEDBACK: Table = SQLModel.metadata.tables["feedback"]
DOCUMENT_FEEDBACK: Table = SQLModel.metadata.tables["document_feedback"]
SIGNALS: Table = SQLModel.metadata.tables["implicit_signals"]
JUDGEMENTS: Table = SQLModel.metadata.tables["judgements"]
REPLICAS: Table = SQLModel.metadata.tables["replicas"]
REMOVED: Table = SQLModel.metadata.tables["removed"]
ERASURES: Table = SQLModel.metadata.tables["erasures"]
ROUTER_VERSIONS: Table = SQLModel.metadata.tables["router_versions"]
ROUTER_EVENTS: Table = SQLModel.metadata.tables["router_events"]
TABLES = [
    DECISIONS,
    SPEND,
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
