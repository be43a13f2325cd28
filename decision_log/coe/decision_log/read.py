"""Queries of the decision log: records, rewards and counts, for training, evaluation and reports."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError
from sqlalchemy import Connection, Row, Text, bindparam, text

from coe.base.errors import StoreError
from coe.decision_log.decision_record import (
    OUR_FAULTS,
    RETRIEVAL,
    DecisionKind,
    DecisionRecord,
    TerminalState,
    read_record,
)
from coe.decision_log.feedback_types import FeedbackKind, ImplicitKind
from coe.decision_log.sql_engine import in_parts
from coe.router.types import DecisionReason

if TYPE_CHECKING:
    from sqlalchemy import TextClause


REWARD_WEIGHT: Mapping[FeedbackKind, float] = {
    FeedbackKind.TEST: 4.0,
    FeedbackKind.TICKET: 4.0,
    FeedbackKind.SCORE: 2.0,
    FeedbackKind.THUMB: 2.0,
    FeedbackKind.EDIT: 1.0,
    FeedbackKind.RETRY: 1.0,
}
"""Weight of each kind of feedback on one answer: a test is certain, a retry only a hint (our choice)."""

NOT_OF_THE_MAP = {
    DecisionReason.EXPLICIT: "the client named the expert",
    DecisionReason.UNGRADED: "no expert that the router knew could serve it",
    DecisionReason.CACHED: "the answer came from the cache",
    DecisionReason.KEPT: "the conversation kept its expert",
    DecisionReason.ESCALATED: "the strongest expert took over a loop that had stalled",
}
"""Reasons of decisions by the client, the conversation or the cache, whose outcomes teach nothing about the map."""

LIMITS = frozenset({"context_length_exceeded", "expert_rate_limited", "expert_out_of_quota", "expert_busy"})
"""Error codes of an expert that must not or cannot accept a request now; they do not count against its answers."""

NO_FAILURES = OUR_FAULTS | LIMITS

ASKED_BY_COE = "asked by coe itself"
BY_SEVERAL = "several experts were asked"
REASKED_WITHIN_S = 600.0
"""Seconds, ten minutes: later the same words are a new request rather than a complaint (our choice)."""

PAGE_ROWS = 5000
BATCH_IDS = 500
"""Number of ids in one statement, well below the databases' limits on parameters."""


def read_rewards(
    connection: Connection,
    key_weights: Mapping[str, float] | None = None,
    ids: Sequence[str] | None = None,
    *,
    of_tasks: bool = False,
) -> dict[str, float]:
    """Return the weighted mean of the feedback on each decision, in [0, 1].

    Args:
        key_weights: weight of each key id's feedback, 1 if absent; feedback of weight 0 is left out. Only the team that
            asked can rate an answer, and its key's weight applies to the decision as a whole.
        ids: the decisions to read; None for all.
        of_tasks: credit feedback on a step of a loop of tools to the decision that began the loop.
    """
    began = read_task_beginnings(connection) if of_tasks else {}
    query = "SELECT decision_id, kind, value, key_id FROM feedback"
    if ids is None:
        rows = connection.execute(text(query))
    else:
        rows = connection.execute(by_ids(f"{query} WHERE decision_id IN :ids"), {"ids": ids})
    sums: dict[str, tuple[float, float]] = {}
    for decision_id, kind, value, key_id in rows:
        weight = REWARD_WEIGHT[FeedbackKind(kind)] * (key_weights or {}).get(key_id, 1.0)
        if weight > 0:
            credited = began.get(decision_id, decision_id)
            total, weights = sums.get(credited, (0.0, 0.0))
            sums[credited] = (total + weight * float(value), weights + weight)
    return {decision_id: total / weights for decision_id, (total, weights) in sums.items()}


def read_task_beginnings(connection: Connection) -> dict[str, str]:
    """Return the decision on the ask, for each rated step by which an agent continued it.

    The router drew the expert at the ask; what followed, moves included, is what came of it. So the outcome counts in
    full for that decision and its propensity. A share by steps would favour experts whose failures are escalated early.
    """
    rated = "SELECT * FROM decisions WHERE session_id IS NOT NULL AND decision_id IN (SELECT decision_id FROM feedback)"
    steps = connection.execute(text(f"{rated} AND text_hash IS NULL")).all()
    query = by_ids("SELECT at, session_id, text_hash, decision_id FROM decisions WHERE session_id IN :ids ORDER BY at")
    asks: dict[tuple[str, str], list[tuple[float, str]]] = {}
    for part in in_parts(sorted({step.session_id for step in steps}), BATCH_IDS):
        for at, session, ask, decision_id in connection.execute(query, {"ids": part}):
            asks.setdefault((session, ask), []).append((at, decision_id))
    found: dict[str, str] = {}
    for step in steps:
        ask = record_of(step).text_hash or ""  # of the same words: a sub-agent has asks of its own in the session
        for at, decision_id in asks.get((step.session_id, ask), ()):
            if at <= step.at:
                found[step.decision_id] = decision_id
    return found


def read_reasked(connection: Connection, session_id: str | None = None) -> set[str]:
    """Return the decisions whose ask came again within ten minutes in the same session.

    Asks are equal if their keyed hashes are, so privacy level `none` yields none.

    Args:
        session_id: the only session to read; None for all.
    """
    of_session = "" if session_id is None else "AND session_id = :session_id"
    query = text(
        "SELECT decision_id FROM (SELECT decision_id, at, LEAD(at) OVER "
        "(PARTITION BY session_id, text_hash ORDER BY at, decision_id) AS next_at FROM decisions "
        f"WHERE session_id IS NOT NULL AND text_hash IS NOT NULL {of_session}) AS asks WHERE next_at - at <= :within"
    )
    values = {"within": REASKED_WITHIN_S} | ({} if session_id is None else {"session_id": session_id})
    return set(connection.scalars(query, values))


def implicit_kinds(record: DecisionRecord, reasked: Collection[str]) -> tuple[ImplicitKind, ...]:
    """Return the client's actions that may say something about an answer; `reasked` is from `read_reasked`."""
    found = {
        ImplicitKind.ABORTED: record.state is TerminalState.CLIENT_GONE and record.ttft_ms is not None,
        ImplicitKind.CUT_OFF: record.state is TerminalState.ANSWERED and record.finish_reason == "length",
        ImplicitKind.REASKED: record.decision_id in reasked,
    }
    return tuple(kind for kind, is_there in found.items() if is_there)


def record_of(row: Row[*tuple[Any, ...]]) -> DecisionRecord:
    """Return the record of a row with `decision_id`, `record` and `embedding`; raise StoreError if it is damaged."""
    try:
        read = read_record(row.record)
    except ValidationError as error:
        raise StoreError(f"row {row.decision_id} of the decision log is not a decision record") from error
    return read if row.embedding is None else read.model_copy(update={"embedding": row.embedding})


def is_chat(record: DecisionRecord) -> bool:
    """Return whether a decision chose among chat experts (see retrieval.stores.export for the others)."""
    return record.kind is DecisionKind.CHAT


def read_records(connection: Connection, since: float) -> Iterator[DecisionRecord]:
    """Yield every chat record since a time (Unix seconds), with its embedding, in order of arrival.

    Raises:
        StoreError: a row is damaged.
    """
    query = text(
        "SELECT at, decision_id, record, embedding FROM decisions "
        "WHERE at >= :since AND (at > :at OR decision_id > :last) ORDER BY at, decision_id LIMIT :page"
    )
    after, last = since, ""
    while rows := connection.execute(query, {"since": after, "at": after, "last": last, "page": PAGE_ROWS}).all():
        yield from filter(is_chat, map(record_of, rows))
        after, last = rows[-1].at, rows[-1].decision_id


def read_newest(connection: Connection, fingerprint: str, *, since: float, most: int) -> Iterator[DecisionRecord]:
    """Yield the newest chat decisions since a Unix time that have an embedding of this encoder, at most `most`."""
    query = text(
        "SELECT decision_id, record, embedding FROM decisions WHERE at >= :since "
        "AND encoder_fingerprint = :fingerprint AND embedding IS NOT NULL ORDER BY at DESC, decision_id LIMIT :most"
    )
    bounds = {"since": since, "fingerprint": fingerprint, "most": most}
    yield from filter(is_chat, map(record_of, connection.execute(query, bounds)))


def by_ids(query: str) -> TextClause:
    """Return the query with a parameter `ids` that takes a sequence."""
    return text(query).bindparams(bindparam("ids", expanding=True, type_=Text()))


def count_feedback(
    connection: Connection, since: float, until: float, by: Literal["kind", "key_id"]
) -> list[tuple[str, int, float]]:
    """Return pieces of feedback and their mean value by kind or by key (None without keys), most first."""
    query = (
        f"SELECT {by}, COUNT(*), AVG(value) FROM feedback WHERE at >= :since AND at < :until GROUP BY {by} "
        "ORDER BY 2 DESC, 1"
    )
    rows = connection.execute(text(query), {"since": since, "until": min(until, 1e18)})
    return [(row[0], row[1], row[2]) for row in rows]


def read_judged_grades(connection: Connection, since: float, until: float) -> dict[tuple[str, str], dict[str, float]]:
    """Return the grades of served answers: (judge, rubric) -> decision -> grade."""
    query = text(
        "SELECT j.judge, j.rubric, j.decision_id, j.value FROM judgements j JOIN decisions d "
        "ON d.decision_id = j.decision_id AND d.expert = j.expert "
        "WHERE j.other = '' AND d.at >= :since AND d.at < :until"
    )
    rows = connection.execute(query, {"since": since, "until": min(until, 1e18)})
    grades: dict[tuple[str, str], dict[str, float]] = {}
    for judge, rubric, decision_id, value in rows:
        grades.setdefault((judge, rubric), {})[decision_id] = value
    return grades


def read_preferences(
    connection: Connection, judges: Collection[tuple[str, str]]
) -> dict[str, list[tuple[str, str, float]]]:
    """Return preferences of judges by rubric: decision -> (serving expert, other expert, preference for the first)."""
    query = text("SELECT judge, rubric, decision_id, expert, other, value FROM judgements WHERE other <> ''")
    found: dict[str, list[tuple[str, str, float]]] = {}
    for judge, rubric, decision_id, *pair in connection.execute(query):
        if (judge, rubric) in judges:
            found.setdefault(decision_id, []).append((pair[0], pair[1], pair[2]))
    return found


def count_swapped_pairs(connection: Connection, since: float, until: float) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the pairs judged in both orders, and how many of them consistently, by (judge, rubric)."""
    query = text(
        "SELECT judge, rubric, COUNT(*), SUM(CASE WHEN is_consistent THEN 1 ELSE 0 END) FROM judgements "
        "WHERE other <> '' AND at >= :since AND at < :until GROUP BY judge, rubric"
    )
    rows = connection.execute(query, {"since": since, "until": min(until, 1e18)})
    return {(judge, rubric): (int(pairs), int(consistent)) for judge, rubric, pairs, consistent in rows}


def read_router_events(connection: Connection, since: float, until: float) -> list[dict[str, Any]]:
    """Return `at`, `version`, `event` and `detail` of router events with since <= at < until (Unix seconds)."""
    query = text("SELECT at, version, event, detail FROM router_events WHERE at >= :since AND at < :until ORDER BY at")
    rows = connection.execute(query, {"since": since, "until": min(until, 1e18)}).mappings()
    return [dict(row) for row in rows]


def asked_several(record: DecisionRecord) -> bool:
    """Return whether a strategy called experts for the answer."""
    return record.strategy is not None and bool(record.strategy.calls)


def has_failed(record: DecisionRecord) -> bool:
    """Return whether the router's chosen expert failed at the request: a reward of 0, even if another expert answered.

    A client that left does not count as its failure, nor does an outage or setting of the gateway (`OUR_FAULTS`). The
    same holds for a limit of the expert (`LIMITS`, status 429), and for a rejected request (other 4xx but 408). Status
    200 belongs to a stream that broke after it began.
    """
    decision = record.decision
    if decision is None or record.is_probe or decision.reason in NOT_OF_THE_MAP or asked_several(record):
        return False
    if (code := record.failures.get(decision.expert)) is not None:
        return code not in NO_FAILURES
    if record.state not in (TerminalState.UPSTREAM_ERROR, TerminalState.TIMED_OUT):
        return False
    if record.error_code in NO_FAILURES:
        return False
    return record.status in (200, 408) or record.status >= 500


def why_dropped(record: DecisionRecord, rewards: Mapping[str, float]) -> str | None:
    """Return the reason why an answer teaches nothing about the map; None if it does."""
    if record.is_probe:
        return ASKED_BY_COE
    if record.decision is None or record.state is TerminalState.REJECTED:
        return "rejected before routing"
    if record.state is not TerminalState.ANSWERED:
        return f"not answered ({record.state})"
    if (why := NOT_OF_THE_MAP.get(record.decision.reason)) is not None:
        return why
    if asked_several(record):
        return BY_SEVERAL
    if record.served_expert != record.decision.expert:
        return "another expert answered after a failure"
    return None if record.decision_id in rewards else "no feedback"


def read_judged_searches(
    connection: Connection, since: float, unheard: Collection[str] = ()
) -> Iterator[tuple[DecisionRecord, dict[str, float]]]:
    """Yield retrieval decisions since a Unix time that have feedback, by id, with the mean value per document.

    Args:
        unheard: ids of keys whose feedback is ignored.

    Raises:
        StoreError: a row is damaged.
    """
    values: dict[str, dict[str, list[float]]] = {}
    rows = connection.execute(text("SELECT decision_id, document_id, value, key_id FROM document_feedback"))
    for decision_id, document_id, value in (row[:3] for row in rows if row.key_id not in unheard):
        values.setdefault(decision_id, {}).setdefault(document_id, []).append(value)
    query = by_ids(
        "SELECT decision_id, record, NULL AS embedding FROM decisions "
        "WHERE decision_id IN :ids AND category = :category AND at >= :since ORDER BY decision_id"
    )
    for part in in_parts(sorted(values), BATCH_IDS):
        found = connection.execute(query, {"ids": part, "category": RETRIEVAL, "since": since}).all()
        for record in map(record_of, found):
            said = values[record.decision_id]
            yield record, {name: sum(each) / len(each) for name, each in said.items()}
