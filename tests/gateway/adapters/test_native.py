"""Experts whose engines speak a API themselves: bytes pass both ways, and the log still knows what happened."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from coe.base.errors import ConfigError
from coe.gateway.app import ADAPTERS
from coe.gateway.chat.limits import bounded, most
from coe.gateway.chat_request import Native
from coe.router.capabilities import Capabilities
from coe.router.config.expert import ClientApi, Engine, ExpertConfig
from coe.router.config.gateway import GatewayConfig
from tests.gateway.adapters.scripted import Json, completion, scripted
from tests.gateway.running import Running, config_of, echoes, provider, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.gateway.test_durable_answers import WaitingLog
from tests.waiting import until

NATIVE: dict[str, Any] = {"ruby": {"engine": "vllm", "apis": [api.value for api in ClientApi]}}
CAN_TAKE = {name: Capabilities(4096, apis=frozenset(ClientApi if name == "ruby" else ())) for name in EXPERTS}
ROUTER = small_router(capabilities=CAN_TAKE)

REQUESTS: dict[str, Json] = {
    "responses": {"input": "red", "truncation": "auto", "tools": [{"type": "web_search"}], "top_k": 3, "store": True},
    "messages": {"max_tokens": 9, "messages": [{"role": "user", "content": "red"}], "container": "c", "top_k": 3},
    "completions": {"prompt": "red", "echo": True, "logprobs": 1, "max_tokens": 9},
}
WHOLE: dict[str, Json] = {
    "responses": {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "m",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
        "usage": {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7},
    },
    "messages": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 2},
    },
    "completions": {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "m",
        "choices": [{"index": 0, "text": "hi", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    },
}


def named(*values: Json) -> bytes:
    return b"".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode() for value in values)


STREAMS: dict[str, bytes] = {
    "responses": named(
        {"type": "response.created", "response": {"id": "r", "object": "response"}},
        {"type": "response.output_text.delta", "delta": "hi"},
        {"type": "response.completed", "response": WHOLE["responses"]},
    ),
    "messages": named(
        {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ),
    "completions": b'data: {"choices":[{"index":0,"text":"hi"}]}\n\n'
    b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
}
LAST = {"responses": b"event: response.completed", "messages": b"event: message_stop", "completions": b"data: [DONE]"}
FAILED: dict[str, bytes] = {
    "responses": named({"type": "response.failed", "response": {"status": "failed", "error": {"code": "dead"}}}),
    "messages": named({"type": "error", "error": {"type": "dead", "message": "x"}}),
    "completions": b'data: {"error": {"code": "dead"}}\n\n',
}
APIS = tuple(REQUESTS)


def unended(path: str) -> bytes:
    """A stream that never comes to its end."""
    return STREAMS[path].partition(LAST[path])[0].replace(b'"stop"', b"null").replace(b'"end_turn"', b"null")


async def post(gateway: Running, path: str, **fields: Any) -> tuple[int, bytes]:
    body = {"model": "auto", **REQUESTS[path], **fields}
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "b-1"}
    async with gateway.client.post(f"{gateway.gateway.url}/{path}", json=body, headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("path", APIS)
async def test_bytes_pass_and_the_log_knows(path: str) -> None:
    async with (
        scripted(**{path: [WHOLE[path], STREAMS[path]]}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER) as gateway,
    ):
        status, whole = await post(gateway, path)
        _, stream = await post(gateway, path, stream=True)
        records = [await gateway.record(number) for number in (0, 1)]
    assert status == 200
    assert json.loads(whole) == WHOLE[path]
    assert stream == STREAMS[path]
    store = {"store": False} if path == "responses" else {}
    assert engine.asked[0] == (path, {**REQUESTS[path], **store, "model": "expert"})
    if path == "messages":
        assert engine.headers[0]["anthropic-beta"] == "b-1"
    for record in records:
        assert (record.served_expert, record.state.value, record.finish_reason) == ("ruby", "answered", "stop")
        assert (record.usage.prompt_tokens, record.usage.completion_tokens) == (5, 2)
        assert not record.usage.is_estimated


@pytest.mark.parametrize("path", APIS)
async def test_of_a_priced_expert_only_completions_are_asked_for_usage(path: str) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    body, _, end = STREAMS[path].partition(LAST[path])
    sent = body + usage + LAST[path] + end if path == "completions" else STREAMS[path]
    priced = {"ruby": {**NATIVE["ruby"], "price": {"output": 1.0}}}
    async with (
        scripted(**{path: sent}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=priced, router=ROUTER) as gateway,
    ):
        assert (await post(gateway, path, stream=True))[1] == STREAMS[path]
        assert (await gateway.record()).cost_usd == pytest.approx(2e-6)
    asked = engine.asked[0][1].get("stream_options")
    assert asked == ({"include_usage": True} if path == "completions" else None)


@pytest.mark.parametrize("path", APIS)
async def test_the_end_of_a_stream_waits_for_its_row(path: str) -> None:
    log = WaitingLog()
    async with (
        scripted(**{path: STREAMS[path]}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER, log=log) as gateway,
    ):
        body = {"model": "auto", **REQUESTS[path], "stream": True}
        async with gateway.client.post(f"{gateway.gateway.url}/{path}", json=body) as answer:
            begun = b""
            while begun != STREAMS[path].partition(LAST[path])[0]:
                begun += await answer.content.readany()
                assert LAST[path] not in begun
                assert not answer.content.at_eof()
            await until(lambda: log.waiting == 1)
            log.is_free.set()
            assert begun + await answer.read() == STREAMS[path]


@pytest.mark.parametrize("path", APIS)
async def test_an_error_within_a_stream_passes_and_is_logged(path: str) -> None:
    async with (
        scripted(**{path: unended(path) + FAILED[path]}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER, retries=0) as gateway,
    ):
        _, stream = await post(gateway, path, stream=True)
        record = await gateway.record()
    assert stream.startswith(unended(path) + FAILED[path])
    assert (record.state.value, record.error_code) == ("upstream_error", "dead")


@pytest.mark.parametrize("path", APIS)
async def test_a_stream_without_an_end_is_an_error_in_the_shape_of_its_wire(path: str) -> None:
    async with (
        scripted(**{path: unended(path)}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER, retries=0) as gateway,
    ):
        _, stream = await post(gateway, path, stream=True)
        record = await gateway.record()
    assert stream.startswith(unended(path))
    rest = stream.removeprefix(unended(path))
    assert rest.startswith(b"data: {" if path == "completions" else b"event: error\n")
    assert b"was cut off" in rest
    assert record.state.value == "upstream_error"


async def test_what_chat_cannot_say_goes_to_an_expert_that_can() -> None:
    """`emerald` is the map's for green, but only `ruby` speaks the API."""
    async with (
        scripted(messages=WHOLE["messages"], chat__completions=completion(content="chat")) as engine,
        running(
            echoes(ruby=provider(engine.url), emerald=provider(engine.url)), entries=NATIVE, router=ROUTER
        ) as gateway,
    ):
        ask = [{"role": "user", "content": "green"}]
        await post(gateway, "messages", messages=ask)
        status, translated = await post(gateway, "messages", messages=ask, container=None)
        refused, error = await post(gateway, "messages", messages=ask, model="emerald")
        records = [await gateway.record(number) for number in (0, 1, 2)]
    assert [path for path, _ in engine.asked] == ["messages", "chat/completions"]
    assert (status, json.loads(translated)["content"]) == (200, [{"type": "text", "text": "chat"}])
    assert [record.served_expert for record in records] == ["ruby", "emerald", None]
    assert refused == 400
    assert "'container': a chat request cannot say this" in json.loads(error)["error"]["message"]
    assert records[0].decision.excluded["emerald"] == "does not speak /v1/messages itself"


async def test_a_failover_translates_for_the_next_expert() -> None:
    async with (
        scripted() as dead,
        scripted(chat__completions=completion(content="chat")) as engine,
        running(
            echoes(ruby=provider(dead.url), emerald=provider(engine.url), plain=provider(engine.url)), entries=NATIVE
        ) as gateway,
    ):
        dead.status = 503
        status, body = await post(gateway, "messages", container=None)
    assert (status, json.loads(body)["content"][0]["text"]) == (200, "chat")
    assert [path for path, _ in dead.asked] == ["messages"]


@pytest.mark.parametrize("path", APIS)
async def test_an_answer_of_another_kind_is_a_502(path: str) -> None:
    async with (
        scripted(**{path: {"odd": 1}}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER, retries=0) as gateway,
    ):
        status, body = await post(gateway, path)
    assert status == 502
    assert f"is not one of /v1/{path}" in json.loads(body)["error"]["message"]


async def test_tokens_are_counted_on_the_wire() -> None:
    async with (
        scripted(messages__count_tokens={"input_tokens": 21}) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER) as gateway,
    ):
        body = {"model": "auto", "messages": REQUESTS["messages"]["messages"]}
        async with gateway.client.post(f"{gateway.gateway.url}/messages/count_tokens", json=body) as answer:
            assert (answer.headers["x-coe-token-count"], await answer.json()) == ("exact", {"input_tokens": 21})
    assert engine.asked == [("messages/count_tokens", {**body, "model": "expert"})]


@pytest.mark.parametrize("said", [{"input_tokens": "many"}, b"{", {}, {"input_tokens": None}])
async def test_a_count_that_is_none_is_estimated(said: Any) -> None:
    async with (
        scripted(messages__count_tokens=said) as engine,
        running(echoes(ruby=provider(engine.url)), entries=NATIVE, router=ROUTER) as gateway,
    ):
        body = {"model": "auto", "messages": REQUESTS["messages"]["messages"]}
        async with gateway.client.post(f"{gateway.gateway.url}/messages/count_tokens", json=body) as answer:
            assert (answer.status, answer.headers["x-coe-token-count"]) == (200, "estimate")


def test_the_most_that_a_native_request_costs_counts_all_it_asks() -> None:
    expert = ExpertConfig(engine=Engine.VLLM, model="m", context_tokens=100)
    body = {"model": "auto", "prompt": ["a", "b"], "max_tokens": 10, "n": 2, "best_of": 3}
    chat = ADAPTERS["/v1/completions"].request(body, GatewayConfig(), {})
    assert most(chat, [expert]).tokens == 2 * 100 + 2 * 3 * 10  # each prompt may fill the context
    chat = ADAPTERS["/v1/responses"].request({"model": "auto", "input": "red"}, GatewayConfig(), {})
    native = bounded(chat, 50).native
    assert native.body["max_output_tokens"] == 50


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"engine": "echo", "apis": ["messages"]}, "apis: engine 'echo' takes none; allowed: llamacpp, vllm, openai"),
        ({"engine": "llamacpp", "adapter": "a", "apis": ["messages"]}, "answers messages by the base"),
        ({"engine": "vllm", "apis": ["batches"]}, "batches"),
    ],
)
def test_a_wire_that_an_engine_does_not_speak_is_refused(entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        config_of(entries={"ruby": entry})


CALLED: Json = {"type": "tool_use", "id": "c1", "name": "f", "input": {}}
SIGNED: Json = {"type": "thinking", "thinking": "its own", "signature": "s1"}
THOUGHT: Json = {"type": "thinking", "thinking": "of a chat model", "signature": ""}
FAILED_CALL: Json = {"type": "tool_result", "tool_use_id": "c1", "content": "Error: no such file"}
HIDDEN: Json = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "e1"}
CLEAR: Json = {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "of a chat model"}]}


@pytest.mark.parametrize("engine", ["openai", "vllm"])
async def test_a_loop_that_moves_to_a_vendor_takes_no_reasoning_along_that_the_vendor_did_not_sign(engine: str) -> None:
    """A green loop stalls at plain, which speaks chat, and goes to emerald, which speaks Anthropic's API itself."""
    can_take = {name: Capabilities(apis=frozenset({"messages"} if name == "emerald" else ())) for name in EXPERTS}
    router = small_router(capabilities=can_take)
    router = replace(router, policies={"default": replace(router.policies["default"], pins={1: 2})})
    asked: list[Json] = [{"role": "user", "content": "what makes all those green leaves green?"}]
    loop = asked + [{"role": "assistant", "content": [THOUGHT, CALLED]}, {"role": "user", "content": [FAILED_CALL]}] * 3
    own = [{"role": "assistant", "content": [SIGNED, THOUGHT]}, {"role": "assistant", "content": [THOUGHT]}]
    async with (
        scripted(messages=[WHOLE["messages"]]) as vendor,
        scripted(**{"chat/completions": [completion(content="hi"), completion(content="hi")]}) as chat,
    ):
        entries = {"emerald": {"engine": engine, "url": f"{vendor.url}/v1", "apis": ["messages"]}}
        experts = echoes(emerald=provider(vendor.url), plain=provider(chat.url))
        async with running(experts, entries=entries, router=router) as gateway:
            for messages in (asked, [*loop[:1], *own, *loop[1:]]):
                assert (await post(gateway, "messages", messages=messages, container=None))[0] == 200
            record = await gateway.record(1)
    assert (record.decision.reason.value, record.served_expert) == ("escalated", "emerald")
    sent = vendor.asked[0][1]["messages"]
    if engine == "vllm":
        assert sent == [*loop[:1], *own, *loop[1:]], "an engine of one's own takes all"
        return
    steps = [{"role": "assistant", "content": [CALLED]}, {"role": "user", "content": [FAILED_CALL]}] * 3
    assert sent == [*asked, {"role": "assistant", "content": [SIGNED]}, *steps]


def test_responses_keep_reasoning_that_is_encrypted() -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    items = [{"role": "user", "content": "x"}, HIDDEN, CLEAR, call, {"type": "odd", "content": ["text"]}]
    body = {"model": "m", "input": items}
    assert Native(ClientApi.RESPONSES, body, dict, "max_output_tokens").without_foreign_reasoning() == {
        "model": "m",
        "input": [items[0], HIDDEN, *items[3:]],
    }
    text = {"model": "m", "input": "x"}
    assert Native(ClientApi.RESPONSES, text, dict, "max_output_tokens").without_foreign_reasoning() == text
