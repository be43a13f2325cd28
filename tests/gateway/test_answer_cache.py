"""Repeats of a request: answered from Redis to the same team, until they are old or rated badly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from base.redis_names import CACHED_ANSWERS, CACHED_FROM
from fleet.wires.builtin import Options, build
from gateway.chat_request import chat_request
from gateway.keys.grants import Caller
from gateway.replay import replay
from router.builtins import measured_builtins
from router.gateway_config import GatewayConfig
from router.pipeline import Router
from router.types import DecisionReason
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, echoes, running, wire
from tests.gateway.small_router import EXPERTS, small_router
from tests.waiting import until

ENTRIES = {name: {"engine": "echo", "model": "echo"} for name in EXPERTS}
BODY = {"model": "auto", "messages": [{"role": "user", "content": "a red rose"}]}
CACHE = {"engine": "builtin", "model": "cache", "params": {"max_age_s": 600}}


def cached_router(version: str = "0123456789abcdef") -> Router:
    import numpy as np

    none = np.zeros((3, 1))
    built = replace(measured_builtins(("repeats",), none, none, {}), trusted=frozenset({"repeats"}))
    return replace(small_router(version=version), builtins=built)


@asynccontextmanager
async def composition(redis_url: str, **changes: Any) -> AsyncIterator[Running]:
    changes.setdefault("backends", echoes())
    backends = {**changes.pop("backends"), "repeats": build(Options(kind="cache", name="repeats"))}
    router = changes.pop("router", None) or cached_router()
    sections = {"experts": {**ENTRIES, "repeats": CACHE}}
    async with running(backends, router=router, sections=sections, redis_url=redis_url, **changes) as gateway:
        yield gateway


async def asked(gateway: Running, text: str = "a red rose", **fields: Any) -> tuple[str, str, str]:
    """The expert, its answer, and the decision's id. An answer that is kept is waited for."""
    async with gateway.chat(text, **fields) as answer:
        assert answer.status == 200, await answer.text()
        said = (await answer.json())["choices"][0]["message"]["content"]
    await until(lambda: not gateway.parts.cache._sending)
    return answer.headers["x-coe-expert"], said, answer.headers["x-coe-decision-id"]


async def test_a_repeat_gets_the_same_answer_for_nothing_and_is_logged_as_the_caches(redis_url: str) -> None:
    async with composition(redis_url) as gateway:
        assert (await asked(gateway))[:2] == ("ruby", "a red rose")
        assert (await asked(gateway, "  a red rose\n", user="somebody"))[:2] == ("repeats", "a red rose")
        async with gateway.chat("a red rose", stream=True) as streamed:
            assert b'"content":"a red rose"' in await streamed.read()
            assert streamed.headers["x-coe-expert"] == "repeats"
        record = await gateway.record(1)
        assert (record.decision.reason, record.served_expert) == (DecisionReason.BUILTIN, "repeats")
        assert record.usage.completion_tokens == 0
        assert not replay(cached_router(), record, b"0" * 32).differences
    with Redis.from_url(redis_url) as client:
        keys = [key.decode() for key in client.scan_iter("coe:cache:*")]
        assert all(0 < client.ttl(key) <= 600 for key in keys)
        assert not any("rose" in key for key in keys)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "A red rose"},
        {"temperature": 0.5},
        {"max_tokens": 7},
        {"model": "auto:wild"},
        {"n": 2},
        {"logprobs": True},
        {"model": "ruby"},
    ],
)
async def test_another_request_is_answered_anew(redis_url: str, fields: dict[str, Any]) -> None:
    async with composition(redis_url) as gateway:
        await asked(gateway)
        assert (await asked(gateway, **fields))[0] != "repeats"


async def test_another_router_begins_anew(redis_url: str) -> None:
    async with composition(redis_url) as gateway:
        await asked(gateway)
    async with composition(redis_url, router=cached_router("f" * 16)) as gateway:
        assert (await asked(gateway))[0] == "ruby"
    async with composition(redis_url) as gateway:
        assert (await asked(gateway))[0] == "repeats"


@pytest.mark.parametrize("rated", [0, 1], ids=["the first answer", "the repeat"])
async def test_bad_feedback_forgets_the_answer_and_good_feedback_does_not(redis_url: str, rated: int) -> None:
    async with composition(redis_url) as gateway:
        ids = [(await asked(gateway))[2], (await asked(gateway))[2]]
        for value, expert in ((1.0, "repeats"), (0.0, "ruby")):
            body = {"decision_id": ids[rated], "kind": "thumb", "value": value}
            async with gateway.client.post(f"{gateway.gateway.url}/feedback", json=body) as kept:
                assert kept.status in (200, 202), await kept.text()
            await until(lambda: not gateway.parts.cache._sending)
            assert (await asked(gateway))[0] == expert


@pytest.mark.parametrize("fault", ["unavailable", "cut"])
async def test_an_error_or_a_cut_answer_is_not_kept(redis_url: str, fault: str) -> None:
    async with fault_upstream(fault) as upstream:
        down = {name: wire(upstream.url) for name in EXPERTS}
        async with composition(redis_url, backends=down) as gateway, gateway.chat("a red rose") as answer:
            await answer.read()
    with Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"{CACHED_ANSWERS}*")) == []
        assert list(client.scan_iter(f"{CACHED_FROM}*")) == []


async def test_without_redis_the_cache_abstains() -> None:
    async with composition("redis://127.0.0.1:1/0") as gateway:
        for _ in range(2):
            assert (await asked(gateway))[0] == "ruby"


async def test_no_team_gets_an_answer_of_another(redis_url: str) -> None:
    async with composition(redis_url) as gateway:
        await asked(gateway)
        cache, chat = gateway.parts.cache, chat_request(BODY, GatewayConfig())
        places = {
            key: await cache.look_up(chat, Caller(key, experts=experts), "0123456789abcdef", "default", "d")
            for key, experts in ((None, None), ("one", None), ("two", frozenset({"ruby"})))
        }
    answers = [place.answer for place in places.values() if place is not None]
    assert answers == ["a red rose", None, None]
