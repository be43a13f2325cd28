"""POST /v1/feedback: keeps what a person or a test says about an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Literal, Self

from fastapi import Response
from pydantic import Field, model_validator

from coe.base.errors import shorten
from coe.base.json_text import Body, ColumnText
from coe.decision_log.decision_record import DecisionKind, DecisionRecord
from coe.decision_log.feedback_types import DocumentFeedback, Feedback, FeedbackKind, FeedbackStatus
from coe.gateway.answer_cache import AnswerCache
from coe.gateway.endpoints.access import CallerOf, Config, LogDatabase, api_router, part
from coe.gateway.endpoints.decisions import find_decision, no_decision
from coe.gateway.http_errors import ApiError, invalid
from coe.gateway.metrics import Metrics
from coe.router.config.feedback import FeedbackConfig
from coe.router.types import Record

api = api_router()
RETRY_S = 60.0

DEFAULT_VALUES = {FeedbackKind.RETRY: 0.0}
YES_OR_NO = frozenset({FeedbackKind.THUMB, FeedbackKind.RETRY, FeedbackKind.TEST, FeedbackKind.TICKET})
DOCUMENT_KINDS = frozenset({FeedbackKind.THUMB, FeedbackKind.SCORE})


class FeedbackRequest(Body):
    """Feedback of a client on an answer."""

    decision_id: ColumnText = Field(min_length=1, max_length=64, description="from the header x-coe-decision-id")
    kind: FeedbackKind
    value: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        default=None, description="0 is bad, 1 is good; thumb, test and ticket take nothing between; retry is 0"
    )
    document_id: str | None = Field(
        default=None, min_length=1, max_length=128, description="a document that a search or rerank showed"
    )

    @model_validator(mode="after")
    def has_one_value(self) -> Self:
        if self.document_id is not None and self.kind not in DOCUMENT_KINDS:
            raise ValueError(f"kind '{self.kind}' says nothing of a document; allowed with 'document_id': thumb, score")
        if self.value is None and self.kind not in DEFAULT_VALUES:
            raise ValueError(f"kind '{self.kind}' needs 'value'")
        if self.kind in YES_OR_NO and self.value not in (None, 0.0, 1.0):
            raise ValueError(f"kind '{self.kind}' takes the value 0 or 1")
        if self.kind is FeedbackKind.RETRY and self.value not in (None, 0.0):
            raise ValueError("kind 'retry' takes the value 0: the user wanted another answer")
        return self


class FeedbackAnswer(Record):
    """`status` is `replaced` when the same key had said something else of that kind, `repeated` when the same."""

    decision_id: str
    value: float
    status: Literal["accepted", "replaced", "repeated"]


@api.post("/v1/feedback", status_code=202)
async def put_feedback(
    said: FeedbackRequest,
    response: Response,
    database: LogDatabase,
    config: Config,
    metrics: Annotated[Metrics, part("metrics")],
    cache: Annotated[AnswerCache | None, part("cache")],
    caller: CallerOf,
) -> FeedbackAnswer:
    """Keeps it: 202 the first time, 200 when the same key had said something of that kind; 404 for an unknown decision,
    429 when the key is over a cap of experts.yaml."""
    record = await find_decision(database, said.decision_id, caller.tenant)
    check_subject(record, said.document_id)
    value = DEFAULT_VALUES[said.kind] if said.value is None else said.value
    about = {"decision_id": record.decision_id, "value": value, "at": time.time(), "key_id": caller.key_id}
    feedback = (
        Feedback(kind=said.kind, **about)
        if said.document_id is None
        else DocumentFeedback(document_id=said.document_id, **about)
    )
    status = await asyncio.to_thread(database.put_feedback, feedback, config.feedback, record)
    metrics.feedback.labels(said.kind.value, status.value).inc()
    if status is FeedbackStatus.ERASED:
        raise no_decision(said.decision_id)
    if status is FeedbackStatus.OVER_HOUR:
        raise over_cap(config.feedback)
    if cache is not None and said.document_id is None:
        cache.rated(record.decision_id, value)
    if status is not FeedbackStatus.ACCEPTED:
        response.status_code = 200
    return FeedbackAnswer(decision_id=record.decision_id, value=value, status=status.value)


def check_subject(record: DecisionRecord, document_id: str | None) -> None:
    """A search is judged by its documents, an answer as a whole. Raises ApiError."""
    if record.kind is DecisionKind.CHAT:
        if document_id is not None:
            raise invalid(
                "'document_id': this decision is a chat answer; allowed: the decision of a search",
                "document_id",
            )
        return
    shown = record.retrieval.documents if record.retrieval else ()
    if document_id is None:
        raise invalid(
            f"this decision is of kind '{record.kind}': name one of its documents by 'document_id'", "document_id"
        )
    if document_id not in shown:
        raise ApiError(
            f"decision {record.decision_id} did not show a document {shorten(document_id)}",
            status=404,
            code="document_not_found",
            param="document_id",
        )


def over_cap(caps: FeedbackConfig) -> ApiError:
    message = f"this key gave {caps.max_per_hour} pieces of feedback within an hour, which is the most"
    return ApiError(message, status=429, code="feedback_limit", retry_after_s=RETRY_S)
