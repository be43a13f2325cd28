"""POST /v1/route: the decision for a text or a conversation, without a call to any expert."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import Request

from coe.fleet.explain import reason_in_words
from coe.gateway.asgi import off_loop
from coe.gateway.chat_request import ChatRequest, chat_request, json_object
from coe.gateway.deciding import Decider
from coe.gateway.endpoints.access import CallerOf, Config, api_router, part
from coe.gateway.exchange import new_decision_id
from coe.gateway.http_errors import invalid
from coe.router.gateway_config import GatewayConfig
from coe.router.section import AUTO
from coe.router.types import Record, RoutingDecision

api = api_router()


class RouteAnswer(Record):
    """A decision that was not carried out, and the reason in words."""

    decision: RoutingDecision
    why: str


@api.post("/v1/route")
async def route(
    request: Request,
    config: Config,
    decider: Annotated[Decider, part("decider")],
    caller: CallerOf,
) -> RouteAnswer:
    """A dry run. The body is `{"text": ...}` or a chat request; `model` defaults to `auto`. Nothing is logged."""
    read = partial(route_request, json_object(request.state.json), config.gateway)
    chat = await off_loop(read, await request.body())
    decision = (await decider.decide(chat, new_decision_id(), caller=caller)).decision
    return RouteAnswer(decision=decision, why=reason_in_words(decision))


def route_request(given: dict[str, object], bounds: GatewayConfig) -> ChatRequest:
    """Raises ApiError as `chat_request` does."""
    body = {"model": AUTO, **given}
    if "text" not in body:
        return chat_request(body, bounds)
    text = body.pop("text")
    if not isinstance(text, str) or "messages" in body:
        raise invalid("give either 'text', a string, or 'messages'", "text")
    return chat_request({**body, "messages": [{"role": "user", "content": text}]}, bounds)
