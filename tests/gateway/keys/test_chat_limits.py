"""Chats of keys with caps: what is reserved, what is charged, and what a client over its cap hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from coe.decision_log.decision_record import TerminalState
from coe.fleet.calls.replicas import Replicas
from coe.gateway.chat.limits import ChatReservation, Prices, bounded, most, price, prompt_bound, spent
from coe.gateway.chat_request import Native, chat_request
from coe.gateway.exchange import ChatRow, Ending
from coe.gateway.http.auth import Auth
from coe.gateway.keys.counters import NOTHING, Cost, counters_of
from coe.gateway.keys.grants import Caller, Cap, Grant, Measure, Window, caller_of
from coe.gateway.keys.limits import Reservation
from coe.router.config.expert import ClientApi, ExpertConfig
from coe.router.config.gateway import GatewayConfig
from coe.router.prices.cost import Price
from coe.router.prices.usage import Usage
from tests.gateway.adapters.scripted import chunk, events
from tests.gateway.adapters.test_native import named
from tests.gateway.fault_upstream import ANSWER, STREAM, FaultUpstream, fault_upstream
from tests.gateway.keys.test_limits import counters
from tests.gateway.running import Running, echoes, faulty, provider, running
from tests.served_app import app_of, serving
from tests.waiting import until

PRICES = {"price": {"input": 1000.0, "output": 10_000.0}}
USAGE = ANSWER["usage"]
NANO_SPENT = USAGE["prompt_tokens"] * 1_000_000 + USAGE["completion_tokens"] * 10_000_000


def caller_with(**caps: float) -> Caller:
    """A caller with caps by month."""
    listed = tuple(Cap(measure=Measure(name), amount=amount, window=Window.MONTH) for name, amount in caps.items())
    return caller_of("acme/1", Grant(caps=listed, answer_tokens=20), Grant())


class Known(Auth):
    """Every request is of one caller."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    async def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        return self._caller


@asynccontextmanager
async def limited(
    redis_url: str | None, caller: Caller, mode: str = "ok", **entries: Mapping[str, object]
) -> AsyncIterator[tuple[Running, FaultUpstream]]:
    """A gateway whose `ruby` is a fault upstream with prices."""
    async with faulty(mode, auth=Known(caller), redis_url=redis_url, entries={"ruby": PRICES, **entries}) as (
        gateway,
        upstream,
    ):
        yield gateway, upstream


async def counted(gateway: Running, redis_url: str) -> dict[str, int]:
    """The counters once everything is settled."""
    await until(lambda: gateway.parts.concurrency.running == 0 and not gateway.parts.limits._unsettled)
    with Redis.from_url(redis_url) as client:
        return {name.removeprefix("acme/1:"): count for name, count in counters(client).items()}


@pytest.mark.parametrize(
    ("mode", "is_stream", "nano"),
    [
        ("ok", False, NANO_SPENT),
        ("usage", True, 11_000_000 + 30_000_000),
        ("html", False, 0),
        ("reset", False, 0),
        ("cut_body", False, 0),
        ("error_event", True, 19_000_000 + 200_000_000),  # a part of an answer, which nobody counted: all
    ],
)
async def test_what_is_charged_is_what_the_expert_counted(
    redis_url: str, mode: str, is_stream: bool, nano: int
) -> None:
    caller = caller_with(usd=1.0, tokens=10_000, requests=5)
    async with limited(redis_url, caller, mode) as (gateway, _):
        async with gateway.chat("red", model="ruby", stream=is_stream) as answer:
            await answer.read()
        found = await counted(gateway, redis_url)
    assert found["usd/month"] == nano
    assert found["requests/month"] == 1
    assert (found["tokens/month"] > 0) == (nano > 0)


async def test_cached_tokens_are_charged_at_their_own_price(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a cap and by the log: at the price of others, the fourth would find no money left."""
    usage = {"prompt_tokens": 100_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 95_000}}
    monkeypatch.setitem(ANSWER, "usage", usage)
    prices = {"price": {"input": 5.0, "output": 25.0, "cache_read": 0.5}}
    async with limited(redis_url, caller_with(usd=2.0), ruby=prices) as (gateway, _):
        for _ in range(4):
            async with gateway.chat("red", model="ruby") as answer:
                assert answer.status == 200
        assert await counted(gateway, redis_url) == {"usd/month": 4 * 75_000_000}
        assert [record.cost_usd for record in gateway.log.records] == pytest.approx([0.075] * 4)
        assert gateway.log.records[0].usage.kinds == {"cache_read": 95_000}


@pytest.mark.parametrize("durability", ["async", "sync"])
@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}])
async def test_a_stream_is_counted_though_its_client_did_not_ask(
    redis_url: str, options: dict[str, Any], durability: str
) -> None:
    caller = caller_with(usd=1.0)
    async with limited(redis_url, caller, "counting") as (gateway, upstream):
        gateway.log.is_durable = durability == "sync"
        async with gateway.chat("red", model="ruby", stream=True, **options) as answer:
            assert await answer.read() == STREAM
        assert upstream.requests[0]["stream_options"] == {"include_usage": True}
        assert await counted(gateway, redis_url) == {"usd/month": 11_000_000 + 30_000_000}
        assert (await gateway.record()).usage == Usage(prompt_tokens=11, completion_tokens=3)
        async with gateway.chat("red", model="ruby", stream=True, stream_options={"include_usage": True}) as answer:
            assert b'"total_tokens":14' in await answer.read()


async def test_usage_is_asked_for_only_where_it_counts() -> None:
    async with limited(None, Caller("acme/1"), "counting") as (priced, upstream):
        for body in ({"stream": True}, {}):
            async with priced.chat("red", model="ruby", **body) as answer:
                await answer.read()
        assert ["stream_options" in each for each in upstream.requests] == [True, False]
    free = {"price": {"input": 0.0, "output": 0.0}}
    async with limited(None, Caller("acme/1"), "counting", ruby=free) as (gateway, upstream):
        async with gateway.chat("red", model="ruby", stream=True) as answer:
            await answer.read()
        assert "stream_options" not in upstream.requests[0]


async def test_an_engine_that_refuses_to_be_asked_answers_without() -> None:
    async with limited(None, Caller("acme/1"), "strict") as (gateway, upstream):
        for _ in range(2):
            async with gateway.chat("red", model="ruby", stream=True) as answer:
                assert (answer.status, await answer.read()) == (200, STREAM)
        assert ["stream_options" in each for each in upstream.requests] == [True, False, False]
        body = {"model": "ruby", "input": "red", "stream": True}
        async with gateway.client.post(f"{gateway.gateway.url}/responses", json=body) as answer:
            assert b"response.completed" in await answer.read()
        upstream.mode = "refuses"
        async with gateway.chat("red", model="ruby", stream=True) as answer:
            assert answer.status == 400


async def test_an_answer_without_a_count_is_charged_what_was_reserved(redis_url: str) -> None:
    async with limited(redis_url, caller_with(usd=1.0)) as (gateway, _):
        async with gateway.chat("red", model="ruby", stream=True, max_tokens=3) as answer:
            assert (await answer.read()).endswith(b"[DONE]\n\n")
        assert await counted(gateway, redis_url) == {"usd/month": (3 + 16) * 1_000_000 + 3 * 10_000_000}


async def test_a_client_that_leaves_pays_what_the_expert_may_have_billed(redis_url: str) -> None:
    """Else it could have any number of answers begun. One that waits for its turn has cost nothing."""
    async with (
        fault_upstream("hang") as upstream,
        running(
            {**echoes(), "ruby": Replicas("ruby", {upstream.url: provider(upstream.url)}, max_running=1)},
            auth=Known(caller_with(usd=1.0, requests=5)),
            redis_url=redis_url,
            entries={"ruby": PRICES},
        ) as gateway,
    ):
        asking = asyncio.create_task(gateway.chat("red or blue?", model="ruby").__aenter__())
        await upstream.arrived.wait()
        waiting = asyncio.create_task(gateway.chat("red or blue?", model="ruby").__aenter__())
        queue = gateway.parts.pool.replicas("ruby").queue
        assert queue is not None
        await until(lambda: any(queue._waiting.values()))
        waiting.cancel()
        await until(lambda: gateway.parts.concurrency.running == 1)
        asking.cancel()
        await upstream.cancelled.wait()
        most = (12 + 16) * 1_000_000 + 20 * 10_000_000
        assert await counted(gateway, redis_url) == {"usd/month": most, "requests/month": 2}
        waited, asked = gateway.log.records
    assert (waited.usage, waited.cost_usd) == (Usage(), 0.0)
    assert asked.usage == Usage(prompt_tokens=3, is_estimated=True)
    assert (asked.served_expert, asked.cost_usd) == (None, 0.003), "the prompt alone, where the cap has the most"


async def test_an_answer_that_takes_too_long_is_charged_what_was_reserved(redis_url: str) -> None:
    async with limited(redis_url, caller_with(usd=1.0), "hang", ruby={**PRICES, "timeout_s": 0.2}) as (gateway, _):
        async with gateway.chat("red or blue?", model="ruby", max_tokens=3) as answer:
            assert answer.status == 504
        assert await counted(gateway, redis_url) == {"usd/month": (12 + 16) * 1_000_000 + 3 * 10_000_000}
        assert (await gateway.record()).cost_usd == 0.003


@pytest.mark.parametrize(("at_work", "cost"), [("ruby", Cost(7, 9)), (None, NOTHING)])
def test_an_answer_that_the_gateway_gave_up_is_charged_where_an_expert_was_at_it(at_work: str, cost: Cost) -> None:
    """As one that stops does."""
    charged: list[Cost] = []
    limits: Any = SimpleNamespace(settle_soon=lambda _, cost: charged.append(cost))
    held = Reservation(limits, counters_of(caller_with(usd=1.0).caps, Cost(7, 9), 0.0), reserved=Cost(7, 9))
    none: Any = None
    row = ChatRow(none, none)
    row.calls.at_work = at_work
    row.ending = Ending(TerminalState.UPSTREAM_ERROR, 502)
    ChatReservation(held, Prices({}, none)).settle(row)
    assert charged == [cost]


BEGUN: dict[str, tuple[str, dict[str, Any], bytes]] = {
    "a count of the first token": (
        "messages",
        {"messages": [{"role": "user", "content": "red"}], "max_tokens": 3},
        named(
            {"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "red is a color"}},
        ),
    ),
    "a call of a function": (
        "chat/completions",
        {"messages": [{"role": "user", "content": "red"}], "max_tokens": 3},
        events(chunk(function_call={"name": "f", "arguments": "{}"}), end=b""),
    ),
}


@pytest.mark.parametrize("name", BEGUN)
async def test_a_client_that_has_read_a_part_of_a_stream_pays_for_all(redis_url: str, name: str) -> None:
    """Whatever an engine counts before its end, and whatever the part is made of."""
    path, body, begin = BEGUN[name]

    async def answer_forever(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(begin)
        await asyncio.Event().wait()
        return response

    entries = {"ruby": {"engine": "vllm", "apis": ["messages"], **PRICES}}
    async with (
        serving(app_of({"POST /v1/{path:.*}": answer_forever})) as root,
        running(
            echoes(ruby=provider(f"{root}/v1")),
            auth=Known(caller_with(usd=100.0)),
            redis_url=redis_url,
            entries=entries,
        ) as gateway,
    ):
        url, asked = f"{gateway.gateway.url}/{path}", {"model": "ruby", "stream": True, **body}
        async with gateway.client.post(url, json=asked) as answer:
            assert await answer.content.readany()
        assert await counted(gateway, redis_url) == {"usd/month": (3 + 16) * 1_000_000 + 3 * 10_000_000}


async def test_over_a_cap_no_expert_is_asked_and_the_log_says_so(redis_url: str) -> None:
    async with limited(redis_url, caller_with(usd=0.21)) as (gateway, upstream):
        async with gateway.chat("red", max_tokens=20) as answer:
            assert answer.status == 429
            body, headers = await answer.json(), answer.headers
        assert upstream.requests == []
        record = await gateway.record()
        assert await counted(gateway, redis_url) == {}
        async with gateway.chat("red", max_tokens=19) as answer:
            assert answer.status == 200
            assert answer.headers["x-ratelimit-limit-usd"] == "0.21"
            assert answer.headers["x-ratelimit-remaining-usd"] == "0.001"
    assert body["error"]["code"] == body["error"]["type"] == "insufficient_quota"
    assert "0.21 usd per month, has 0.21 left, and this request may need 0.219" in body["error"]["message"]
    assert headers["x-ratelimit-remaining-usd"] == "0.21"
    assert "retry-after" not in headers, "it would never fit"
    assert (record.state, record.decision, record.error_code) == (TerminalState.REJECTED, None, "insufficient_quota")


async def test_a_client_that_asks_over_its_cap_again_and_again_fills_no_log(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coe.gateway.keys.limits.LOGGED", 3)
    monkeypatch.setattr("coe.gateway.keys.limits.LOGGED_WITHIN_S", 1e9)
    async with limited(redis_url, caller_with(requests=1)) as (gateway, _):
        answers = [await gateway.chat("red", model="ruby") for _ in range(10)]
        assert [answer.status for answer in answers] == [200, *[429] * 9]
        assert ["x-coe-decision-id" in answer.headers for answer in answers] == [True] * 4 + [False] * 6
        assert gateway.parts.chat_counts.requests[TerminalState.REJECTED, 429] == 9
        await gateway.record(3)
    assert len(gateway.log.records) == 4


async def test_openais_client_hears_of_a_spent_budget_once(redis_url: str) -> None:
    async with limited(redis_url, caller_with(usd=0.21)) as (gateway, _):
        client = openai.AsyncOpenAI(base_url=gateway.gateway.url, api_key="any", max_retries=2)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(
                model="auto", max_tokens=20, messages=[{"role": "user", "content": "red"}]
            )
        await client.close()
        await until(lambda: bool(gateway.log.records))
        assert len(gateway.log.records) == 1, "it does not try again what cannot fit"
    assert refused.value.code == "insufficient_quota"


async def test_the_dearest_expert_that_may_be_tried_counts(redis_url: str) -> None:
    dear = {"price": {"input": 0.0, "output": 100_000.0}}
    async with limited(redis_url, caller_with(usd=1.0), plain=dear) as (gateway, _):
        async with gateway.chat("red", max_tokens=11) as routed:  # would go to ruby, and on to plain when that fails
            assert routed.status == 429
        async with gateway.chat("red", model="ruby", max_tokens=11) as named:
            assert named.status == 200


async def test_a_request_that_names_no_longest_answer_gets_one(redis_url: str) -> None:
    async with limited(redis_url, caller_with(tokens=1000)) as (gateway, upstream):
        async with gateway.chat("red", model="ruby") as answer:
            assert answer.status == 200
        async with gateway.chat("red", model="ruby", max_completion_tokens=7) as answer:
            assert answer.status == 200
    assert [request.get("max_tokens") for request in upstream.requests] == [20, None]


async def test_caps_of_requests_alone_change_no_request(redis_url: str) -> None:
    async with limited(redis_url, caller_with(requests=2)) as (gateway, upstream):
        for status in (200, 200, 429):
            async with gateway.chat("red", model="ruby") as answer:
                assert answer.status == status
                assert answer.headers["x-ratelimit-limit-requests"] == "2"
                body = await answer.json()
        assert body["error"]["code"] == "rate_limit_exceeded"
    assert [request.get("max_tokens") for request in upstream.requests] == [None, None]


async def test_keys_without_caps_need_no_redis() -> None:
    async with limited(None, Caller("acme/1")) as (gateway, _), gateway.chat("red") as answer:
        assert answer.status == 200
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    async with limited(None, caller_with(requests=1)) as (gateway, _), gateway.chat("red") as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (await answer.json())["error"]["code"] == "limits_unavailable"


TEXT = st.text(max_size=40)
MESSAGES = st.lists(
    st.builds(
        lambda text, name: {"role": "user", "content": text} | ({"name": "x"} if name else {}), TEXT, st.booleans()
    ),
    min_size=1,
    max_size=4,
)
KINDS = ("cache_read", "cache_write", "cache_write_1h", "reasoning")
EXPERTS = st.lists(
    st.builds(
        lambda low, high, more, longer: ExpertConfig.model_validate(
            {
                "engine": "echo",
                "model": "m",
                "price": {"input": low, "output": high} | more,
                "price_above": {20: longer},
            }
        ),
        st.floats(0, 100),
        st.floats(0, 100),
        st.dictionaries(st.sampled_from(KINDS), st.floats(0, 100)),
        st.dictionaries(st.sampled_from(("input", "output", *KINDS)), st.floats(0, 100)),
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("written", ["cache_write", "cache_write_1h"])
@given(messages=MESSAGES, experts=EXPERTS, longest=st.integers(1, 50), choices=st.integers(1, 3), data=st.data())
def test_no_answer_costs_more_than_was_reserved(
    written: str,
    messages: list[dict[str, Any]],
    experts: list[ExpertConfig],
    longest: int,
    choices: int,
    data: st.DataObject,
) -> None:
    """Whichever expert answers, with any number of tokens that its tokenizer and its limit allow."""
    asked = [*messages[:-1], messages[-1] | ({"cache_control": {"ttl": "1h"}} if written == "cache_write_1h" else {})]
    body = {"model": "auto", "messages": asked, "max_tokens": longest, "n": choices}
    chat = chat_request(body, GatewayConfig())
    reserved = most(chat, experts)
    characters = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    prompt = data.draw(st.integers(0, characters + 16 * len(messages)))
    answer = data.draw(st.integers(0, longest * choices))
    read = data.draw(st.integers(0, prompt))
    kinds = {"cache_read": read, written: prompt - read, "reasoning": data.draw(st.integers(0, answer))}
    usage = Usage(prompt_tokens=prompt, completion_tokens=answer, kinds=kinds)
    cost = spent(usage, data.draw(st.sampled_from(experts)).chat_price)
    assert cost.tokens <= reserved.tokens
    assert cost.nano_usd <= reserved.nano_usd


def request_of(**fields: object) -> Any:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **fields}
    return chat_request(body, GatewayConfig())


def test_what_counts_of_a_prompt() -> None:
    assert prompt_bound(request_of(stream=True, temperature=0.5, user="someone", stop=["x"]).body) == 2 + 16
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert prompt_bound(request_of(tools=[tool]).body) > 1024 + 50
    assert prompt_bound(request_of(messages=[{"role": "user", "content": "é"}]).body) == 2 + 16
    expert = ExpertConfig(engine="echo", model="m", price={"output": 0.15}, context_tokens=9000)
    image = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    shown = request_of(messages=[{"role": "user", "content": [image]}], max_tokens=10)
    assert most(shown, [expert]) == Cost(9010, 1500)
    for part in ({"type": "video_url", "video_url": {"url": "https://x"}}, {"type": "file", "file": {"file_id": "f"}}):
        film = {"role": "user", "content": [{"type": "text", "text": "what is it?"}, part]}
        assert most(request_of(messages=[film], max_tokens=10), [expert]) == Cost(9010, 1500)
    said = {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}
    assert most(request_of(messages=[said], max_tokens=10), [expert]).tokens == 9010
    words = {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "text", "text": "you"}]}
    assert most(request_of(messages=[words], max_tokens=10), [expert]).tokens < 200
    assert most(request_of(max_tokens=10, n=3), [expert]) == Cost(18 + 30, 4500)


@pytest.mark.parametrize("place", ["message", "part", "tool", "native"])
@pytest.mark.parametrize(("kept", "dollars"), [({}, 1.25), ({"ttl": "5m"}, 1.25), ({"ttl": "1h"}, 2.0)])
def test_the_price_of_a_lasting_cache_is_reserved_where_the_body_asks_for_one(
    place: str, kept: dict[str, str], dollars: float
) -> None:
    asks = {"cache_control": {"type": "ephemeral"} | kept}
    part = {"type": "text", "text": "hi"} | (asks if place == "part" else {})
    message = {"role": "user", "content": [part]} | (asks if place == "message" else {})
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}} | (asks if place == "tool" else {})
    chat = request_of(messages=[message], tools=[tool], max_tokens=1)
    if place == "native":
        chat = chat._replace(native=Native(ClientApi.MESSAGES, asks, dict, "max_tokens"))
    prices = {"input": 1, "cache_write": 1.25, "cache_write_1h": 2.0}
    expert = ExpertConfig.model_validate({"engine": "echo", "model": "m", "price": prices})
    assert most(chat, [expert]).nano_usd == 1000 * dollars * prompt_bound(chat.body)


def test_the_larger_of_two_longest_answers_counts() -> None:
    """Engines differ in which of the two they read."""
    free = replace_prices(0.0)
    assert most(request_of(max_tokens=500, max_completion_tokens=1), [free]).tokens == 18 + 500
    assert bounded(request_of(max_completion_tokens=5), 20).body.get("max_tokens") is None
    assert bounded(request_of(), 20).facts.max_output_tokens == 20


def replace_prices(price_out: float) -> ExpertConfig:
    return ExpertConfig(engine="echo", model="m", price={"output": price_out})


def test_prices_round_up_and_hide_no_digit() -> None:
    assert price(1, 0, Price({"input": 0.0375})) == 38
    assert price(3, 0, Price({"input": 0.1})) == 300
    assert price(0, 1000, Price({"output": 15.0})) == 15_000_000
