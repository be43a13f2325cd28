"""POST /v1/logs: events `gen_ai.evaluation.result` of OpenTelemetry, kept as feedback."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress

from fastapi import Request, Response
from pydantic import ValidationError

from coe.base.errors import allowed_values, shorten
from coe.gateway.endpoints.access import api_router, message_of
from coe.gateway.endpoints.decisions import no_decision
from coe.gateway.endpoints.feedback import Desk, FeedbackDesk, FeedbackRequest
from coe.gateway.exchange import decision_named
from coe.gateway.http_errors import ApiError, invalid
from coe.gateway.telemetry.otlp import PROTOBUF, LogRecord, answer_of, log_records
from coe.gateway.telemetry.telemetry import decision_of

api = api_router()
EVENT, PREFIX = "gen_ai.evaluation.result", "gen_ai.evaluation."
LABELS = {"pass": 1.0, "correct": 1.0, "relevant": 1.0, "fail": 0.0, "incorrect": 0.0, "not_relevant": 0.0}
IDS, TRACE = re.compile("dec-[0-9a-f]{20,60}"), re.compile("[0-9a-f]{32}")
MAX_PROBLEMS = 3


@api.post("/v1/logs")
async def take_evaluations(request: Request, desk: Desk) -> Response:
    """Keeps what it can. The answer counts the events that are not kept, and says why."""
    problems: list[str] = []
    for record in log_records(request.state.json):
        try:
            said = verdict(record, desk.config.feedback.evaluations)
            await desk.keep(said.model_copy(update={"decision_id": await decision_about(record, desk)}))
        except ApiError as error:
            problems.append(error.message)
    as_protobuf: bool = request.state.is_protobuf
    body = answer_of(len(problems), "; ".join(list(dict.fromkeys(problems))[:MAX_PROBLEMS]), as_protobuf=as_protobuf)
    return Response(body, media_type=PROTOBUF if as_protobuf else "application/json")


async def decision_about(record: LogRecord, desk: FeedbackDesk) -> str:
    """The decision that an event is about, by the id of the response, or by its span. Raises ApiError."""
    named = str(record.attributes.get("gen_ai.response.id", ""))
    for decision_id in filter(IDS.fullmatch, (decision_named(named), decision_of(record.trace_id, record.span_id))):
        with suppress(ApiError):
            return (await desk.find(decision_id)).decision_id
    of_trace: Sequence[str] = ()
    if TRACE.fullmatch(record.trace_id):
        of_trace = await asyncio.to_thread(desk.database.decisions_of_trace, record.trace_id, desk.caller.tenant)
    own = []
    for decision_id in of_trace:
        with suppress(ApiError):
            own.append((await desk.find(decision_id)).decision_id)
    if len(own) > 1:
        raise invalid(f"the trace {record.trace_id} has several answers; allowed: gen_ai.response.id, which names one")
    if not own:
        raise no_decision(named or record.trace_id)
    return own[0]


def verdict(record: LogRecord, kinds: Mapping[str, str]) -> FeedbackRequest:
    """An event as feedback on a decision that is still to be found. Raises ApiError."""
    name = str(record.attributes.get(f"{PREFIX}name", ""))
    if EVENT not in (record.event, record.attributes.get("event.name")):
        raise invalid(f"an event is not kept; allowed: {EVENT}")
    if name not in kinds:
        raise invalid(f"feedback.evaluations does not name {shorten(name)}{allowed_values(name[:80], kinds)}")
    value = record.attributes.get(f"{PREFIX}score.value")
    if value is None:
        value = LABELS.get(str(record.attributes.get(f"{PREFIX}score.label")))
    try:
        return FeedbackRequest.model_validate({"decision_id": "unknown", "kind": kinds[name], "value": value})
    except ValidationError as error:
        raise invalid(f"{shorten(name)}: {message_of(error.errors()[0])}") from error
