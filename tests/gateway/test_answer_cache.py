"""Repeats of a request: answered from Redis to the same team, until they are old or rated badly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis

from coe.base.redis_names import CACHED_ANSWERS, CACHED_FROM
from coe.decision_log.read import why_dropped
from coe.gateway.chat_request import chat_request
from coe.gateway.keys.grants import Caller
from coe.router.config.gateway import GatewayConfig
from coe.router.types import DecisionReason
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, provider, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.waiting import until

BODY = {"model": "auto", "messages": [{"role": "user", "content": "a red rose"}]}


@asynccontextmanager
async def composition(redis_url: str, version: str = "0123456789abcdef", **changes: Any) -> AsyncIterator[Running]:
    router = small_router(version=version)
    async with running(router=router, redis_url=redis_url, answer_cache_s=600, **changes) as gateway:
        yield gateway


KEPT = "kept"
"""The usage of such an answer is 0."""


async def asked(gateway: Running, text: str = "a red rose", **fields: Any) -> tuple[str, str, str]:
    """The expert or `KEPT`, the answer, and the decision's id. An answer that is kept is waited for."""
    async with gateway.chat(text, **fields) as answer:
        assert answer.status == 200, await answer.text()
        completion = await answer.json()
    await until(lambda: not gateway.parts.cache._sending)
    said, tokens = completion["choices"][0]["message"]["content"], completion["usage"]["total_tokens"]
    headers = answer.headers
    return headers["x-coe-expert"] if tokens else KEPT, said, headers["x-coe-decision-id"]


async def test_a_repeat_gets_the_same_answer_for_nothing_and_is_not_routed(redis_url: str) -> None:
    async with composition(redis_url) as gateway:
        assert (await asked(gateway))[:2] == ("ruby", "a red rose")
        assert (await asked(gateway, "  a red rose\n", user="somebody"))[:2] == (KEPT, "a red rose")
        async with gateway.chat("a red rose", stream=True) as streamed:
            assert b'"content":"a red rose"' in await streamed.read()
            assert (streamed.headers["x-coe-expert"], streamed.headers["x-coe-category"]) == ("ruby", "red")
        record = await gateway.record(1)
        assert (record.decision.reason, record.decision.category) == (DecisionReason.CACHED, "red")
        assert (record.served_expert, record.inputs, record.usage.completion_tokens) == ("ruby", None, 0)
        assert why_dropped(record, {}) == "the answer came from the cache"
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
        assert (await asked(gateway, **fields))[0] != KEPT


async def test_another_router_and_other_experts_begin_anew(redis_url: str) -> None:
    async with composition(redis_url) as gateway:
        await asked(gateway)
    changed = {name: {"engine": "echo", "model": "other"} for name in EXPERTS}
    for changes in ({"version": "f" * 16}, {"entries": changed}):
        async with composition(redis_url, **changes) as gateway:
            assert (await asked(gateway))[0] == "ruby"
    async with composition(redis_url) as gateway:
        assert (await asked(gateway))[0] == KEPT


@pytest.mark.parametrize("rated", [0, 1], ids=["the first answer", "the repeat"])
async def test_bad_feedback_forgets_the_answer_and_good_feedback_does_not(redis_url: str, rated: int) -> None:
    async with composition(redis_url) as gateway:
        ids = [(await asked(gateway))[2], (await asked(gateway))[2]]
        for value, expert in ((1.0, KEPT), (0.0, "ruby")):
            body = {"decision_id": ids[rated], "kind": "thumb", "value": value}
            async with gateway.client.post(f"{gateway.gateway.url}/feedback", json=body) as kept:
                assert kept.status in (200, 202), await kept.text()
            await until(lambda: not gateway.parts.cache._sending)
            assert (await asked(gateway))[0] == expert


@pytest.mark.parametrize("fault", ["unavailable", "cut"])
async def test_an_error_or_a_cut_answer_is_not_kept(redis_url: str, fault: str) -> None:
    async with fault_upstream(fault) as upstream:
        down = {name: provider(upstream.url) for name in EXPERTS}
        async with composition(redis_url, backends=down) as gateway, gateway.chat("a red rose") as answer:
            await answer.read()
    with Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"{CACHED_ANSWERS}*")) == []
        assert list(client.scan_iter(f"{CACHED_FROM}*")) == []


async def test_without_redis_nothing_is_found() -> None:
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
    answers = [place.answer and place.answer.text for place in places.values() if place is not None]
    assert answers == ["a red rose", None, None]
