"""GET /v1/decisions/{id}: the receipt of one request."""

from __future__ import annotations

import asyncio

from fastapi import Response

from base.json_text import to_json
from decision_log.protocols import DecisionDatabase, DecisionSink
from gateway.body_fields import shorten
from gateway.endpoints.access import CallerOf, OtherProcesses, Sink, Store, api_router
from gateway.http_errors import ApiError
from gateway.keys.grants import tenant_of
from gateway.retrieval.log import why_logged
from gateway.schemas import Receipt, signals_of, weighed_experts
from gateway.siblings import Siblings
from router.explain import reason_in_words
from router.types import DecisionKind, DecisionReason, DecisionRecord

api = api_router()


@api.get("/v1/decisions/{decision_id}", response_model=Receipt)
async def show_decision(
    decision_id: str, sink: Sink, store: Store, siblings: OtherProcesses, caller: CallerOf
) -> Response:
    """The decision, what was weighed, what became of it and what was said; 404 when there is none, or another
    team made it."""
    record = await find_decision(sink, store, siblings, decision_id, caller.tenant)
    record, decision = record.model_copy(update={"embedding": None}), record.decision
    is_chat = record.kind is DecisionKind.CHAT
    is_routed = decision is not None and is_chat and decision.reason is not DecisionReason.EXPLICIT
    in_words = why_logged(record)
    if in_words is None:
        in_words = reason_in_words(decision, decision.threshold) if decision else "no expert was chosen."
    receipt = Receipt(
        record=record,
        why=in_words,
        signals=signals_of(decision) if decision and is_routed else None,
        experts=weighed_experts(decision) if decision and is_routed else (),
        feedback=await asyncio.to_thread(store.get_feedback, decision_id) if store else (),
        implicit=await asyncio.to_thread(store.get_signals, decision_id) if store else (),
    )
    return Response(to_json(receipt.compact()), media_type="application/json")


async def find_decision(
    sink: DecisionSink, store: DecisionDatabase | None, siblings: Siblings, decision_id: str, tenant: str
) -> DecisionRecord:
    """The record from memory, from the database, or from the memory of another worker.

    Raises:
        ApiError: 404. It does not tell a decision of another team from one that never was.
        StoreError: the database cannot be asked.
    """
    record = await asyncio.to_thread(sink.recent, decision_id)  # it redacts the text
    if record is None and store is not None:
        record = await asyncio.to_thread(store.get_decision, decision_id)
    if record is None:
        record = await siblings.decision(decision_id)
    if record is None or tenant_of(record.key_id) != tenant:
        raise no_decision(decision_id)
    return record


def no_decision(decision_id: str) -> ApiError:
    return ApiError(
        f"there is no decision {shorten(decision_id)}", status=404, code="decision_not_found", param="decision_id"
    )
