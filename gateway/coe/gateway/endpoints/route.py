"""POST /v1/route: the decision for a text or a conversation, without a call to any expert."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated

from fastapi import Request

from coe.decision_log.privacy import new_decision_id
from coe.fleet.explain import RouteAnswer, loop_in_words, reason_in_words
from coe.gateway.chat.deciding import Decider
from coe.gateway.chat_request import ChatRequest, chat_request, json_object
from coe.gateway.endpoints.access import CallerOf, Config, api_router, part
from coe.gateway.http.asgi import off_loop
from coe.gateway.http_errors import invalid
from coe.gateway.routers.live_router import LiveRouter
from coe.router.config.gateway import GatewayConfig
from coe.router.deciding_words import read_from
from coe.router.section import AUTO
from coe.router.types import DecisionReason, Query

api = api_router()


@api.post("/v1/route")
async def route(
    request: Request,
    config: Config,
    decider: Annotated[Decider, part("decider")],
    live: Annotated[LiveRouter, part("live")],
    caller: CallerOf,
) -> RouteAnswer:
    """A dry run. The body is `{"text": ...}` or a chat request; `model` defaults to `auto`. Nothing is logged.

    The words that decided are found by leaving each out, which takes an encoding for each.
    """
    parse = partial(route_request, json_object(request.state.json), config.gateway)
    chat = await off_loop(parse, await request.body())
    decision = (await decider.decide(chat, new_decision_id(), caller=caller)).decision
    router = live.current
    words = None
    if router is not None and decision.reason is not DecisionReason.EXPLICIT:
        asked = Query("", chat.text, earlier=chat.earlier, system=chat.system)
        words = await asyncio.to_thread(read_from, router, asked)
    loop = chat.facts.loop
    why = reason_in_words(decision) + loop_in_words(loop)
    return RouteAnswer(decision=decision, why=why, loop=loop, read_from=words)


def route_request(given: dict[str, object], bounds: GatewayConfig) -> ChatRequest:
    """Raises ApiError as `chat_request` does."""
    body = {"model": AUTO, **given}
    if "text" not in body:
        return chat_request(body, bounds)
    text = body.pop("text")
    if not isinstance(text, str) or "messages" in body:
        raise invalid("give either 'text', a string, or 'messages'", "text")
    return chat_request({**body, "messages": [{"role": "user", "content": text}]}, bounds)
