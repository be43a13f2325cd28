"""The decision log as training data: decisions that were answered, joined with the feedback they got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from pydantic import ValidationError
from sqlalchemy import Connection, text

from base.errors import DataError
from decision_log.log_connection import foreign_version, version_reason
from router.types import (
    DecisionKind,
    DecisionReason,
    DecisionRecord,
    FeedbackKind,
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

OUR_FAULTS = frozenset(
    {
        "server_shutting_down",
        "gateway_fault",
        "misconfigured",
        "not_ready",
        "store_unavailable",
        "stores_unavailable",
        "other_vector_space",
        "expert_credentials",
        "expert_misconfigured",
        "no_expert_alive",
    }
)
"""Error codes of the gateway's own outages and settings: they say nothing of the expert (docs/decision-log.md)."""

PAGE_ROWS = 5000


def read_rewards(connection: Connection, key_weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """Weighted mean of the feedback on each decision.

    Args:
        key_weights: key id -> how much its feedback counts; 1 where not named. What counts nothing is left out. Only
            the key that asked may speak of an answer, so the same weight also belongs to the decision as a whole.
    """
    rows = connection.execute(text("SELECT decision_id, kind, value, key_id FROM feedback"))
    sums: dict[str, tuple[float, float]] = {}
    for decision_id, kind, value, key_id in rows:
        weight = REWARD_WEIGHT[FeedbackKind(kind)] * (key_weights or {}).get(key_id, 1.0)
        if weight > 0:
            total, weights = sums.get(decision_id, (0.0, 0.0))
            sums[decision_id] = (total + weight * float(value), weights + weight)
    return {decision_id: total / weights for decision_id, (total, weights) in sums.items()}


def read_signals(connection: Connection) -> dict[str, tuple[ImplicitKind, ...]]:
    """Implicit signals per decision; kinds in the order of their names."""
    found: dict[str, tuple[ImplicitKind, ...]] = {}
    rows = connection.execute(text("SELECT decision_id, kind FROM implicit_signals ORDER BY decision_id, kind"))
    for decision_id, kind in rows:
        found[decision_id] = (*found.get(decision_id, ()), ImplicitKind(kind))
    return found


def read_records(
    connection: Connection, since: float, left_out: Counter[str] | None = None
) -> Iterator[DecisionRecord]:
    """Every record of chat since a time, with its embedding, in order of arrival, a page at a time.

    Args:
        left_out: counts rows of another version of the record, by reason.

    Raises:
        DataError: a row is damaged.
    """
    query = text(
        "SELECT at, decision_id, record, embedding FROM decisions "
        "WHERE at >= :since AND (at > :at OR decision_id > :last) ORDER BY at, decision_id LIMIT :page"
    )
    after, last = since, ""
    while rows := connection.execute(query, {"since": after, "at": after, "last": last, "page": PAGE_ROWS}).all():
        for row in rows:
            try:
                record = DecisionRecord.model_validate_json(row.record)
            except ValidationError as error:
                if (version := foreign_version(row.record)) is not None:
                    if left_out is not None:
                        left_out[version_reason(version)] += 1
                    continue
                raise DataError(
                    f"decisions: row {row.decision_id} is not a decision record ({error.error_count()} faults)"
                ) from error
            if record.kind is not DecisionKind.CHAT:
                continue  # it chose among retrieval experts, see retrieval.stores.export
            yield record if row.embedding is None else record.model_copy(update={"embedding": row.embedding})
        after, last = rows[-1].at, rows[-1].decision_id


def has_failed(record: DecisionRecord) -> bool:
    """Tells whether the expert that the router chose failed at the request: a reward of 0, whoever answered in the end.

    Not its failure: a client that left, an outage or a setting of the gateway (`OUR_FAULTS`), and a request that it
    refused (a status of 4xx, but for 408 and 429). A status of 200 is that of a stream which broke after it had begun.
    """
    decision = record.decision
    if decision is None or record.is_probe or decision.reason is DecisionReason.EXPLICIT:
        return False
    if record.served_expert not in (None, decision.expert):
        return True  # the gateway turns to another expert after a failure only
    if record.state not in (TerminalState.UPSTREAM_ERROR, TerminalState.TIMED_OUT) or record.error_code in OUR_FAULTS:
        return False
    return record.status in (200, 408, 429) or record.status >= 500


def why_dropped(record: DecisionRecord, rewards: Mapping[str, float]) -> str | None:
    """Reason why an answer teaches nothing about the map, or None."""
    if record.decision is None or record.state is TerminalState.REJECTED:
        return "rejected before routing"
    if record.state is not TerminalState.ANSWERED:
        return f"not answered ({record.state})"
    if record.is_probe:
        return "asked by coe itself"
    if record.decision.reason is DecisionReason.EXPLICIT:
        return "the client named the expert"
    if record.served_expert != record.decision.expert:
        return "another expert answered after a failure"
    return None if record.decision_id in rewards else "no feedback"
