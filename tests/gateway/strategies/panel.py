"""Three experts on one real socket that answer as told, and a router that asks them by a strategy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import orjson
from aiohttp import web

from coe.router.pipeline import Router
from coe.router.policy.strategy_plan import StrategyPlan
from coe.router.strategies.agree import Agree
from tests.gateway.running import Running, provider, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.served_app import app_of, serving

HANG, FAIL, GARBAGE, STREAM, ERROR = "<hang>", "<fail>", "<garbage>", "<stream>", "<error>"
AGREE = Agree((0, 1), 2)
TOKENS = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


@dataclass
class Panel:
    """`says` by expert: a text, a JSON list of calls of tools, or a fault. `beside` stands beside calls. `gate`
    holds every answer until it is set."""

    says: dict[str, str]
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    url: str = ""
    beside: dict[str, Any] = field(default_factory=dict)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        expert = body["model"]
        self.asked.append(expert)
        self.bodies.append(body)
        self.running.add(expert)
        try:
            await self.gate.wait()
            if self.says[expert] == HANG:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.add(expert)
            raise
        finally:
            self.running.discard(expert)
        return self.answer(expert, self.says[expert])

    async def models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({})

    def answer(self, expert: str, said: str) -> web.Response:
        if said == FAIL:
            return web.json_response({"error": {"message": "out of memory", "code": "oom"}}, status=500)
        if said == GARBAGE:
            return web.Response(body=b"\x00<html>", content_type="application/json")
        if said == STREAM:
            return web.Response(body=b"data: \x00\xff{{\n\n", content_type="text/event-stream")
        if said == ERROR:
            return web.json_response({"error": {"message": "overloaded", "code": "overloaded"}})
        message: dict[str, Any] = {"role": "assistant", "content": said}
        if said.startswith("[{"):
            message = {"role": "assistant", "content": None, "tool_calls": orjson.loads(said), **self.beside}
        finish_reason = "tool_calls" if "tool_calls" in message else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        whole = {"id": "c1", "object": "chat.completion", "created": 1, "model": expert, "choices": [choice]}
        return web.json_response({**whole, "usage": TOKENS})


@asynccontextmanager
async def served(panel: Panel) -> AsyncIterator[Panel]:
    async with serving(app_of({"POST /v1/chat/completions": panel.chat, "GET /v1/models": panel.models})) as root:
        panel.url = f"{root}/v1"
        yield panel


@dataclass(frozen=True)
class AskingRouter(Router):
    """The small router, which plans one strategy for every category."""

    planned: Agree | None = None

    def strategy(self, policy: str, category: str) -> Agree | None:
        return self.planned


def asking_router(strategy: Agree) -> Router:
    plain = small_router()
    parts = {each.name: getattr(plain, each.name) for each in fields(plain)}
    plan = StrategyPlan(np.full(3, 3), {}, ())
    parts["policies"] = {key: replace(policy, plan=plan) for key, policy in plain.policies.items()}
    return AskingRouter(**parts, planned=strategy)


@asynccontextmanager
async def composition(
    says: Mapping[str, str],
    strategy: Agree = AGREE,
    *,
    is_open: bool = True,
    **changes: Any,
) -> AsyncIterator[tuple[Running, Panel]]:
    """A gateway whose answers are numbers; `ruby`, `emerald` and `plain` are the experts 0, 1 and 2."""
    async with served(Panel(dict(says))) as panel:
        if is_open:
            panel.gate.set()
        backends = {expert: provider(panel.url, expert) for expert in EXPERTS}
        kinds = {category: {"kind": "number"} for category in ("red", "green", "general")}
        sections = {"answers": kinds, **changes.pop("sections", {})}
        async with running(backends, router=asking_router(strategy), sections=sections, **changes) as gateway:
            yield gateway, panel
