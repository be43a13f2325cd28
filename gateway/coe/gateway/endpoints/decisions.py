"""GET /v1/decisions: the team's decisions. GET /v1/decisions/{id}: the receipt of one request."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from math import isfinite, nan
from typing import Annotated, Literal

from fastapi import Query, Response
from pydantic import Field

from coe.base.errors import shorten
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionKind, DecisionRecord
from coe.decision_log.feedback_types import Feedback, ImplicitKind
from coe.decision_log.listing import DecisionFilter, DecisionLine, Place
from coe.decision_log.privacy import tenant_of
from coe.fleet.explain import loop_in_words, reason_in_words
from coe.gateway.endpoints.access import (
    CallerOf,
    LogDatabase,
    answer,
    api_router,
    part,
    scan,
)
from coe.gateway.endpoints.retrieval_exchange import TRACED
from coe.gateway.exchange import decision_named, is_failover
from coe.gateway.http_errors import ApiError, invalid
from coe.gateway.routers.live_router import LiveRouter
from coe.retrieval.routing.query_routing import why
from coe.retrieval.types import RetrievalDecision
from coe.router.deciding_words import ReadFrom, read_from
from coe.router.pipeline import Router
from coe.router.types import Query as RoutedQuery
from coe.router.types import Record, RoutingDecision, View

api = api_router()

ARRIVAL_S, LOOK_S = 2.0, 0.05
"""Longest wait until a decision is in SQL, and the time between two looks (s). It mostly takes 0.1 to 0.4 s."""

MADE_AT = re.compile(r"dec-([0-9a-f]{12})[0-9a-f]{16}")
"""An id that begins with its time in ms, as `decision_log.privacy.new_decision_id` makes it."""

NEW_S = 3600.0
"""Age of an id (s) up to which its decision may be on its way: the id is made before a long answer begins."""


class CategoryProb(Record):
    """A category that stage 1 thought of."""

    category: str
    prob: float


class Signals(Record):
    """The view of stage 1. Above `threshold` the decision falls back to `general`; None: nothing passes it."""

    categories: tuple[CategoryProb, ...]
    uncertainty: float
    threshold: float | None
    is_fallback: bool


class WeighedExpert(Record):
    """One expert as the decision weighed it. `prob` is 0 and `lacks` says why where it could not serve, or the policy
    does not let it. `rank` is its place in the policy's order, from 1.

    Cost and wait are means for a query of this category; a wait of None was never measured.
    """

    expert: str
    prob: float
    predicted_quality: float
    predicted_cost_usd: float
    predicted_wait_ms: float | None
    lacks: str | None = None
    rank: int | None = None
    is_chosen: bool = False
    is_runner_up: bool = False


SHOWN_ONCE = {
    *("eligible", "eligible_probs", "predicted_quality", "excluded", "excluded_quality", "outside_policy", "ranking"),
    *("predicted_cost_usd", "predicted_wait_ms", "category_probs", "uncertainty", "threshold"),
}
"""Fields of a decision that `signals` and `experts` of a receipt show."""


class Receipt(Record):
    """One request: how it ended, what was weighed, and the feedback since.

    `signals` and `experts` are empty where the client named the expert or none was chosen. `read_from` is there where
    the log keeps the text and the router that decided is the live one. `implicit` is what clients did, which is not
    feedback.
    """

    record: DecisionRecord
    why: str
    signals: Signals | None = None
    read_from: ReadFrom | None = None
    experts: tuple[WeighedExpert, ...] = ()
    feedback: tuple[Feedback, ...] = ()
    implicit: tuple[ImplicitKind, ...] = ()

    def compact(self) -> dict[str, object]:
        """As JSON values: what `signals` and `experts` show is not in `record.decision` again."""
        shown_once = SHOWN_ONCE if self.signals and self.experts else set()
        values = self.model_dump(mode="json", exclude={"record": {"decision": shown_once}})
        return {name: with_fewer_digits(value) for name, value in values.items()}


def with_fewer_digits(value: object) -> object:
    """A JSON value whose numbers have six digits, or three decimals where that is more; the log keeps them all."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if abs(value) < 1000 else round(value, 3)
    if isinstance(value, dict):
        return {name: with_fewer_digits(part) for name, part in value.items()}
    return [with_fewer_digits(part) for part in value] if isinstance(value, list) else value


def signals_of(decision: RoutingDecision) -> Signals:
    return Signals(
        categories=tuple(CategoryProb(category=name, prob=prob) for name, prob in decision.category_probs.items()),
        uncertainty=decision.uncertainty,
        threshold=decision.threshold,
        is_fallback=decision.is_fallback,
    )


def weighed_experts(decision: RoutingDecision) -> tuple[WeighedExpert, ...]:
    """The experts that the record names, those that could serve first."""
    names = (*decision.eligible, *decision.excluded, *decision.outside_policy)
    lacks, rank = decision.excluded | decision.outside_policy, {e: i for i, e in enumerate(decision.ranking, start=1)}
    probs = dict(zip(decision.eligible, decision.eligible_probs, strict=True))
    qualities = (*decision.predicted_quality, *decision.excluded_quality)
    columns = zip(names, qualities, decision.predicted_cost_usd, decision.predicted_wait_ms, strict=True)
    return tuple(
        WeighedExpert(
            expert=name,
            prob=probs.get(name, 0.0),
            predicted_quality=quality,
            predicted_cost_usd=cost,
            predicted_wait_ms=wait,
            lacks=lacks.get(name),
            rank=rank.get(name),
            is_chosen=name == decision.expert,
            is_runner_up=name == decision.runner_up,
        )
        for name, quality, cost, wait in columns
    )


class ListQuery(DecisionFilter):
    """The query of a list. `after` is `next` of the page before."""

    limit: int = Field(default=50, ge=1, le=500)
    after: str | None = None

    @property
    def place(self) -> Place | None:
        """Raises ApiError 400."""
        if self.after is None:
            return None
        written, _, decision_id = self.after.partition("_")
        try:
            at = float(written)
        except ValueError:
            at = nan
        if not isfinite(at):
            raise invalid(f"'after' is {shorten(self.after)}; allowed: 'next' of the page before", "after")
        return Place(at, decision_id)


class DecisionList(Record):
    """A page of a list. Where `next` is not null there may be more."""

    object: Literal["list"] = "list"
    data: tuple[DecisionLine, ...]
    next: str | None


@api.get("/v1/decisions", response_model=DecisionList)
async def list_decisions(wanted: Annotated[ListQuery, Query()], database: LogDatabase, caller: CallerOf) -> Response:
    """The decisions of the caller's team that match, newest first; one that was made a moment ago may be missing."""

    look = partial(database.list_decisions, caller.tenant, wanted, limit=wanted.limit, after=wanted.place)
    found = await scan(look)
    following = None if found.next is None else f"{found.next.at!r}_{found.next.decision_id}"
    return answer(DecisionList(data=found.lines, next=following).model_dump(mode="json"))


@api.get("/v1/decisions/{decision_id}", response_model=Receipt)
async def show_decision(
    decision_id: str, database: LogDatabase, live: Annotated[LiveRouter, part("live")], caller: CallerOf
) -> Response:
    """The decision, what was weighed, what became of it and what was said; 404 when there is none, or another
    team made it."""
    record = await find_decision(database, decision_id, caller.tenant)
    record, decision = record.model_copy(update={"embedding": None}), record.decision
    is_chat = record.kind is DecisionKind.CHAT
    is_routed = decision is not None and is_chat and decision.reason.is_routed
    in_words = why_logged(record)
    if in_words is None:
        refused = f"no expert was chosen ({record.error_code or record.state})."
        in_words = reason_in_words(decision, decision.threshold) if decision else refused
        in_words += loop_in_words(record.loop)
    if decision is not None and is_chat and is_failover(decision, record.served_expert, record.strategy):
        code = record.failures.get(decision.expert)
        in_words += f"; {decision.expert} failed{f' ({code})' if code else ''}, so {record.served_expert} was asked"
    receipt = Receipt(
        record=record,
        why=in_words,
        signals=signals_of(decision) if decision and is_routed else None,
        read_from=await words_of(record, live.serving.live) if is_routed else None,
        experts=weighed_experts(decision) if decision and is_routed else (),
        feedback=await asyncio.to_thread(database.get_feedback, record.decision_id),
        implicit=await asyncio.to_thread(database.get_signals, record),
    )
    return answer(receipt.compact())


async def words_of(record: DecisionRecord, router: Router | None) -> ReadFrom | None:
    """The words that decided, by the logged text; a task in a system prompt is not logged."""
    decision, text = record.decision, record.text
    if router is None or decision is None or decision.router_version != router.version:
        return None
    if not text or decision.view is View.TASK:
        return None
    return await asyncio.to_thread(read_from, router, RoutedQuery("", text))


async def find_decision(database: Database, decision_id: str, tenant: str) -> DecisionRecord:
    """The record in the database. One whose id is new is waited for: it may be on its way.

    Args:
        decision_id: its id, or that of its answer.

    Raises:
        ApiError: 404. It does not tell a decision of another team from one that never was.
        StoreError: the database cannot be asked.
    """
    named, decision_id = decision_id, decision_named(decision_id)
    record = await asyncio.to_thread(database.get_decision, decision_id)
    if record is None and is_new(decision_id):
        record = await arriving(database, decision_id)
    if record is None or tenant_of(record.key_id) != tenant:
        raise no_decision(named)
    return record


def is_new(decision_id: str) -> bool:
    """Returns True where the time in an id that a gateway made is of the last hour."""
    made = MADE_AT.fullmatch(decision_id)
    return made is not None and abs(time.time() - int(made[1], 16) / 1000) < NEW_S


async def arriving(database: Database, decision_id: str) -> DecisionRecord | None:
    """The record as soon as it is in the database; None after ARRIVAL_S. Raises StoreError."""
    deadline = time.monotonic() + ARRIVAL_S
    record = None
    while record is None and time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
        record = await asyncio.to_thread(database.get_decision, decision_id)
    return record


def no_decision(decision_id: str) -> ApiError:
    return ApiError(
        f"there is no decision {shorten(decision_id)}", status=404, code="decision_not_found", param="decision_id"
    )


def why_logged(record: DecisionRecord) -> str | None:
    """The reason of a logged retrieval decision, in words; None for chat."""
    trace, made = record.retrieval, record.decision
    if trace is None or made is None:
        return None
    decision = trace.model_dump(include=TRACED) | {"library_version": made.router_version}
    return f"{why(RetrievalDecision.model_validate(decision))}."
