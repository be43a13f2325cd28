"""POST /v1/route: the decision for a text or a conversation, without calling anybody."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from gateway.endpoints.access import gateway_state
from gateway.exchange import new_decision_id
from gateway.http_errors import invalid
from gateway.off_loop import read_off_loop
from gateway.schemas import RouteAnswer
from gateway.state import GatewayState
from gateway.wire import ChatRequest, chat_request, decode_object
from router.config import AUTO, GatewayConfig
from router.explain import reason_in_words

api = APIRouter()


@api.post("/v1/route")
async def route(request: Request, state: Annotated[GatewayState, Depends(gateway_state)]) -> RouteAnswer:
    """A dry run. The body is `{"text": ...}` or a chat request; `model` defaults to `auto`. Nothing is logged."""
    chat = await read_off_loop(partial(route_request, bounds=state.config.gateway), await request.body())
    decision = (await state.decide(chat, new_decision_id())).decision
    return RouteAnswer(decision=decision, why=reason_in_words(decision))


def route_request(raw: bytes, bounds: GatewayConfig) -> ChatRequest:
    """Raises ApiError as `decode_chat` does."""
    body = {"model": AUTO, **decode_object(raw)}
    if "text" not in body:
        return chat_request(body, bounds)
    text = body.pop("text")
    if not isinstance(text, str) or "messages" in body:
        raise invalid("give either 'text', a string, or 'messages'", "text")
    return chat_request({**body, "messages": [{"role": "user", "content": text}]}, bounds)
