"""POST /v1/feedback: what a person or a test says about an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from gateway.endpoints.access import caller_key_id, gateway_state
from gateway.endpoints.decisions import find_decision
from gateway.http_errors import ApiError
from gateway.schemas import FeedbackAnswer, FeedbackRequest
from gateway.state import GatewayState
from router.types import Feedback

api = APIRouter()


@api.post("/v1/feedback", status_code=202)
async def put_feedback(
    said: FeedbackRequest,
    response: Response,
    state: Annotated[GatewayState, Depends(gateway_state)],
    key_id: Annotated[str | None, Depends(caller_key_id)],
) -> FeedbackAnswer:
    """Keeps it: 202 the first time, 200 when it replaces what the same key said before; 404 for an unknown decision."""
    await find_decision(state, said.decision_id, key_id)
    if state.store is None:
        raise ApiError("this gateway keeps no feedback: it has no database", status=503, code="store_unavailable")
    feedback = Feedback(**said.model_dump(), at=time.time(), key_id=key_id)
    is_first = await asyncio.to_thread(state.store.put_feedback, feedback)
    if not is_first:
        response.status_code = 200
    return FeedbackAnswer(decision_id=said.decision_id, status="accepted" if is_first else "replaced")
