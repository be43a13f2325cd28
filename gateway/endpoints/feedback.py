"""POST /v1/feedback: what a person or a test says about an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from gateway.endpoints.access import caller_key_id, gateway_state
from gateway.endpoints.decisions import find_decision
from gateway.http_errors import ApiError
from gateway.ports import FeedbackStatus
from gateway.schemas import FeedbackAnswer, FeedbackRequest
from gateway.state import GatewayState
from router.config import FeedbackConfig
from router.types import Feedback

api = APIRouter()
RETRY_S = 60.0


@api.post("/v1/feedback", status_code=202)
async def put_feedback(
    said: FeedbackRequest,
    response: Response,
    state: Annotated[GatewayState, Depends(gateway_state)],
    key_id: Annotated[str | None, Depends(caller_key_id)],
) -> FeedbackAnswer:
    """Keeps it: 202 the first time, 200 when the same key had said something of that kind; 404 for an unknown decision,
    429 when the key is over a cap of experts.yaml."""
    await find_decision(state, said.decision_id, key_id)
    if state.store is None:
        raise ApiError("this gateway keeps no feedback: it has no database", status=503, code="store_unavailable")
    value = await asyncio.to_thread(said.reward)
    feedback = Feedback(decision_id=said.decision_id, kind=said.kind, value=value, at=time.time(), key_id=key_id)
    status = await asyncio.to_thread(state.store.put_feedback, feedback, state.config.feedback)
    if status is FeedbackStatus.OVER_HOUR or status is FeedbackStatus.OVER_DECISION:
        raise over_cap(status, state.config.feedback)
    if status is not FeedbackStatus.ACCEPTED:
        response.status_code = 200
    return FeedbackAnswer(decision_id=said.decision_id, value=value, status=status.value)


def over_cap(status: FeedbackStatus, caps: FeedbackConfig) -> ApiError:
    """What a client hears that has said too much; a decision's cap does not go away by waiting."""
    if status is FeedbackStatus.OVER_HOUR:
        message, wait_s = f"this key gave {caps.max_per_hour} pieces of feedback within an hour", RETRY_S
    else:
        message, wait_s = f"this key gave {caps.max_per_decision} kinds of feedback on this decision", None
    return ApiError(f"{message}, which is the most", status=429, code="feedback_limit", retry_after_s=wait_s)
