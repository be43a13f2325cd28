"""The tables of the database."""

from __future__ import annotations

from functools import partial

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, Table, Text
from sqlalchemy import UniqueConstraint as Unique

METADATA = MetaData()

text, number, real = (partial(Column, type_=kind, nullable=False) for kind in (Text, Integer, Float))
many = partial(Column, type_=BigInteger, nullable=False)

FILTERED = ("expert", "category", "state", "router_version", "policy", "is_fallback", "is_probe")
"""Columns that lists of decisions are filtered by."""

DECISIONS = Table(
    "decisions",
    METADATA,
    text("decision_id", primary_key=True),
    real("at"),
    text("replica"),
    number("seq"),
    text("state"),
    Column("expert", Text),  # which answered, or was chosen if none did
    Column("category", Text),
    Column("reason", Text),
    Column("router_version", Text),
    Column("policy", Text),
    Column("is_fallback", Boolean),
    Column("is_probe", Boolean, nullable=False),
    text("tenant"),  # '' without keys
    text("record"),
    Column("session_id", Text),
    Column("text_hash", Text),  # NULL of what an agent continues: nobody asked again
    Column("embedding", LargeBinary),  # half precision, little-endian
    Column("encoder_fingerprint", Text),
    Index("decisions_at", "at"),
    Index("decisions_session", "session_id", "at"),
    # Lists find in it all that they filter by. An index for each filter made a rare value's first page 20 times faster
    # among 300,000 decisions, and each record's writing 4 to 15% dearer.
    Index("decisions_tenant", "tenant", "at", *FILTERED),
)
"""`record` is the DecisionRecord as JSON without its embedding, which is `embedding`; the other columns are for
selecting."""

SPEND = Table(
    "spend",
    METADATA,
    number("slot", primary_key=True),
    text("key_id", primary_key=True),
    number("decisions"),
    number("requests"),
    many("prompt_tokens"),
    many("cached_tokens"),
    many("cache_write_tokens"),
    many("completion_tokens"),
    real("cost_usd"),
)
"""Sums over the decisions of one key ('' without one) in one slot, `decision_log.spend.SLOT_S` seconds. All but
`decisions` are of those that were not refused."""

FEEDBACK = Table(
    "feedback",
    METADATA,
    number("id", primary_key=True),
    text("decision_id"),
    text("kind"),
    real("value"),
    real("at"),
    text("key_id"),
    Unique("decision_id", "kind", "key_id"),
    Index("feedback_key", "key_id", "at"),
    Index("feedback_value", "value"),
)
"""Signs about decisions. `key_id` is '' for a client without a key: NULLs would escape the constraint."""

DOCUMENT_FEEDBACK = Table(
    "document_feedback",
    METADATA,
    number("id", primary_key=True),
    text("decision_id"),
    text("document_id"),
    real("value"),
    real("at"),
    text("key_id"),
    Unique("decision_id", "document_id", "key_id"),
    Index("document_feedback_key", "key_id", "at"),
)
"""Judgements of documents of an answer by clients: 1 opened or cited, 0 rejected."""

JUDGEMENTS = Table(
    "judgements",
    METADATA,
    text("decision_id", primary_key=True),
    text("judge", primary_key=True),
    text("rubric", primary_key=True),
    text("expert", primary_key=True),
    text("other", primary_key=True),
    real("value"),
    Column("is_consistent", Boolean),
    real("at"),
)
"""Judgements of answers by a judge; `other` is '' for a grade, else the expert whose answer it was compared with."""

REPLICAS = Table(
    "replicas",
    METADATA,
    text("replica", primary_key=True),
    number("decisions"),
    number("settled"),
    text("state"),
    real("at"),
)
"""Replicas, each a run of a gateway process, which numbered its decisions 0 to `decisions` - 1."""

REMOVED = Table(
    "removed",
    METADATA,
    text("replica", primary_key=True),
    number("first_seq", primary_key=True),
    number("last_seq", primary_key=True),
    text("reason"),
    real("at"),
)
"""Numbers of decisions that were removed on purpose, first and last included, so that no gap is seen there."""

ERASURES = Table("erasures", METADATA, text("subject", primary_key=True), real("at"))
"""Subjects (their hashes) whose decisions up to `at` must not be in the database, however late they arrive."""

ROUTER_EVENTS = Table(
    "router_events",
    METADATA,
    real("at", primary_key=True),
    text("version", primary_key=True),
    text("event", primary_key=True),
    text("detail"),
)
"""Events of versions, kept once however many gateways saw them; `event` is promoted, canary or withdrawn, `at` the time
that `live.json` gives, in Unix seconds."""

TABLES = list(METADATA.tables.values())
