"""The decision log as training data: decisions that were answered, joined with the feedback they got."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from router.errors import DataError
from router.features import from_bytes
from router.types import (
    DecisionKind,
    DecisionReason,
    DecisionRecord,
    FeedbackKind,
    FloatArray,
    ImplicitKind,
    TerminalState,
)

REWARD_WEIGHT: Mapping[FeedbackKind, float] = {
    FeedbackKind.TEST: 4.0,
    FeedbackKind.TICKET: 4.0,
    FeedbackKind.SCORE: 2.0,
    FeedbackKind.THUMB: 2.0,
    FeedbackKind.EDIT: 1.0,
    FeedbackKind.RETRY: 1.0,
}
"""How much each sign counts when one answer got several: a test knows, a retry only hints (ours)."""

PAGE_ROWS = 5000


@dataclass(frozen=True)
class LoggedAnswer:
    """One routed answer with its reward in [0, 1].

    `text` is None where the log keeps none. `embedding` is what the router decided from, as bytes that `vector` reads,
    and `encoder` the fingerprint of what made it; None where `log.embeddings` was off.
    """

    decision_id: str
    text: str | None
    category: str
    expert: str
    reward: float
    propensity: float
    at: float
    embedding: bytes | None = None
    encoder: str | None = None

    def vector(self, encoder: str) -> FloatArray | None:
        """The embedding (d,) when it was kept and that encoder made it. Raises DataError when it is damaged."""
        return from_bytes(self.embedding) if self.embedding is not None and self.encoder == encoder else None


@dataclass(frozen=True)
class LogDataset:
    """What was read. `used` have a reward; `traffic` counts the answered, routed queries per category (the map's mass);
    `dropped` says how many rows were left out and why."""

    used: tuple[LoggedAnswer, ...]
    traffic: Mapping[str, int]
    dropped: Mapping[str, int]
    n_rows: int
    fingerprint: str


def read_log(database_url: str, *, since: float = 0.0) -> LogDataset:
    """Reads decisions and feedback from SQL.

    Args:
        since: Unix seconds; older decisions are not read.

    Raises:
        DataError: the database cannot be reached, holds no such tables, or a row is damaged.
    """
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            rewards = read_rewards(connection)
            return collect(read_records(connection, since), rewards)
    except (OperationalError, ProgrammingError) as error:
        raise DataError(
            f"the decision log cannot be read from {engine.url.render_as_string()}: {error.orig}"
        ) from error
    finally:
        engine.dispose()


def read_rewards(connection: Connection, key_weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Weighted mean of the feedback on each decision.

    Args:
        key_weights: key id -> how much its feedback counts; 1 where not named. What counts nothing is left out. Only
            the key that asked may speak of an answer, so the same weight also belongs to the decision as a whole.
    """
    has_keys = "key_id" in {column["name"] for column in inspect(connection).get_columns("feedback")}
    key = "key_id" if has_keys else "'' AS key_id"
    rows = connection.execute(text(f"SELECT decision_id, kind, value, {key} FROM feedback"))
    sums: dict[str, tuple[float, float]] = {}
    for decision_id, kind, value, key_id in rows:
        weight = REWARD_WEIGHT[FeedbackKind(kind)] * (key_weights or {}).get(key_id, 1.0)
        if weight > 0:
            total, weights = sums.get(decision_id, (0.0, 0.0))
            sums[decision_id] = (total + weight * float(value), weights + weight)
    return {decision_id: total / weights for decision_id, (total, weights) in sums.items()}


def read_signals(connection: Connection) -> dict[str, tuple[ImplicitKind, ...]]:
    """What clients did, per decision; kinds in the order of their names. Nothing in a database of an older version."""
    if not inspect(connection).has_table("implicit_signals"):
        return {}
    found: dict[str, tuple[ImplicitKind, ...]] = {}
    rows = connection.execute(text("SELECT decision_id, kind FROM implicit_signals ORDER BY decision_id, kind"))
    for decision_id, kind in rows:
        found[decision_id] = (*found.get(decision_id, ()), ImplicitKind(kind))
    return found


def read_records(connection: Connection, since: float) -> Iterator[DecisionRecord]:
    """Every record of chat since a time, with its embedding, in order of arrival, a page at a time."""
    has_embedding = "embedding" in {column["name"] for column in inspect(connection).get_columns("decisions")}
    embedding = "embedding" if has_embedding else "NULL AS embedding"  # a database that no newer gateway has opened
    query = text(
        f"SELECT at, decision_id, record, {embedding} FROM decisions "
        "WHERE at >= :since AND (at > :at OR decision_id > :last) ORDER BY at, decision_id LIMIT :page"
    )
    after, last = since, ""
    while rows := connection.execute(query, {"since": after, "at": after, "last": last, "page": PAGE_ROWS}).all():
        for row in rows:
            try:
                record = DecisionRecord.model_validate_json(row.record)
            except ValidationError as error:
                raise DataError(
                    f"decisions: row {row.decision_id} is not a decision record ({error.error_count()} faults)"
                ) from error
            if record.kind is not DecisionKind.CHAT:
                continue  # it chose among retrieval experts, see gateway.retrieval.export
            yield record if row.embedding is None else record.model_copy(update={"embedding": row.embedding})
        after, last = rows[-1].at, rows[-1].decision_id


def why_dropped(record: DecisionRecord, rewards: Mapping[str, float]) -> str | None:
    """Why a row teaches nothing about the map, or None."""
    if record.decision is None or record.state is TerminalState.REJECTED:
        return "rejected before routing"
    if record.state is not TerminalState.ANSWERED:
        return f"not answered ({record.state})"
    if record.decision.reason is DecisionReason.EXPLICIT:
        return "the client named the expert"
    if record.served_expert != record.decision.expert:
        return "another expert answered after a failure"
    return None if record.decision_id in rewards else "no feedback"


def collect(records: Iterator[DecisionRecord], rewards: Mapping[str, float]) -> LogDataset:
    """Sorts records into used and dropped."""
    used: list[LoggedAnswer] = []
    dropped: Counter[str] = Counter()
    traffic: Counter[str] = Counter()
    digest = hashlib.sha256()
    n_rows = 0
    for record in records:
        n_rows += 1
        digest.update(record.decision_id.encode())
        reason = why_dropped(record, rewards)
        if record.decision is not None and reason in (None, "no feedback"):
            traffic[record.decision.category] += 1
        if reason is not None or record.decision is None:
            dropped[reason or "rejected before routing"] += 1
            continue
        digest.update(repr(rewards[record.decision_id]).encode())
        used.append(
            LoggedAnswer(
                decision_id=record.decision_id,
                text=record.text,
                category=record.decision.category,
                expert=record.decision.expert,
                reward=rewards[record.decision_id],
                propensity=record.decision.propensity,
                at=record.at,
                embedding=record.embedding,
                encoder=record.inputs.encoder if record.inputs else None,
            )
        )
    return LogDataset(tuple(used), traffic, dropped, n_rows, digest.hexdigest()[:16])
