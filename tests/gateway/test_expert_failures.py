"""Experts that fail in ways of their own: our key in their words, no model, no end."""

from __future__ import annotations

import logging

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from coe.base.errors import RouterError
from coe.decision_log.read import has_failed
from coe.fleet.calls.backend import BackendResponse, chunks_of
from coe.fleet.calls.replicas import FAILURES_TO_OPEN, BreakerState
from coe.gateway.experts import answer as expert_answer
from coe.gateway.experts import call as expert_call
from coe.gateway.experts.answer import key_pattern
from coe.gateway.experts.errors import MASK, upstream_error, without_keys
from coe.gateway.http_errors import TOO_LONG
from coe.gateway.settings import expert_keys
from coe.router.config.expert import ExpertConfig
from tests.gateway.fault_upstream import ERROR_EVENT, STREAM, WORDS, events, fault_upstream
from tests.gateway.running import Running, config_of, echoes, faulty, provider, running
from tests.waiting import until

KEY = "Zq7-live/0123456789+abc="


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_refusal_that_quotes_our_key_arrives_without_it(is_stream: bool, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    async with faulty("quotes_key", provider_options={"api_key": KEY}, expert_keys={"ruby": KEY}) as (gateway, _):
        async with gateway.chat("red", stream=is_stream) as answer:
            body, headers = await answer.text(), dict(answer.headers)
        record = await gateway.record()
    assert answer.status == 400
    assert orjson.loads(body)["error"]["message"] == f"bad request of {MASK} and {MASK}"
    for shown in (body, str(headers), record.model_dump_json(), caplog.text):
        assert KEY not in shown
        assert "sk-proj" not in shown


async def test_an_error_event_that_quotes_our_key_arrives_without_it() -> None:
    async with (
        faulty("streams_key", provider_options={"api_key": KEY}, expert_keys={"ruby": KEY}) as (gateway, _),
        gateway.chat("red", stream=True) as answer,
    ):
        received = await answer.read()
    assert KEY.encode() not in received
    assert received.startswith(events(WORDS[0]))
    assert b"died with " + MASK.encode() in received


@pytest.mark.parametrize("key", ["", "x", "EMPTY", "ollama", "not-needed"])
def test_a_word_in_place_of_a_key_is_not_taken_out_of_answers(key: str) -> None:
    config = config_of(entries={"ruby": {"api_key_env": "ITS_KEY"}, "emerald": {"api_key_env": "A_KEY"}})
    assert expert_keys(config, {"ITS_KEY": key, "A_KEY": KEY}) == {"emerald": KEY}


@given(st.binary(max_size=60), st.binary(max_size=60), st.sets(st.integers(0, len(KEY) - 1)), st.booleans())
def test_a_key_is_taken_out_however_json_writes_it(
    before: bytes, after: bytes, escaped: set[int], has_slash: bool
) -> None:
    written = b"".join(
        b"\\u%04x" % each if number in escaped else bytes([each]) for number, each in enumerate(KEY.encode())
    )
    text = before + written.replace(b"/", b"\\/" if has_slash else b"/") + after
    assert key_pattern(KEY).sub(MASK.encode(), text).startswith(before + MASK.encode())


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key provided: abcd1234efgh",
        "bad key sk-live-0123456789",
        "Authorization: Bearer abcdef.ghijkl",
        "AIzaSyA1234567890abc is not valid",
        f"no such user {KEY}",
    ],
)
def test_what_looks_like_a_key_is_masked(text: str) -> None:
    assert without_keys(text, KEY).endswith(MASK) or MASK in without_keys(text, KEY)
    assert without_keys("the task is risk-averse; ask-me-later", KEY) == "the task is risk-averse; ask-me-later"


def test_an_escaped_key_in_a_refusal_is_masked_too() -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in KEY)
    body = f'{{"error": {{"message": "of {escaped}", "type": null, "param": null, "code": null}}}}'.encode()
    assert upstream_error("ruby", 422, body, {}, KEY).message == f"of {MASK}"


@pytest.mark.parametrize(
    ("mode", "code"), [("no_model", "expert_misconfigured"), ("refuses_key", "expert_credentials")]
)
async def test_an_expert_that_refuses_key_or_model_opens_its_breaker(mode: str, code: str) -> None:
    async with faulty(mode) as (gateway, _):
        for _ in range(FAILURES_TO_OPEN):
            async with gateway.chat("red", model="ruby") as answer:
                error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (502, code)
            assert error["message"].startswith("expert ruby ")
        pool = gateway.parts.pool
        assert pool.state("ruby") is not BreakerState.CLOSED
        assert pool.problems() == {"ruby": error["message"]}
        async with gateway.chat("red") as answer:
            assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
        pool.breaker("ruby").succeed()
        assert pool.problems() == {}


async def test_a_request_that_is_at_fault_itself_opens_no_breaker() -> None:
    async with faulty("refuses") as (gateway, _):
        for _ in range(2 * FAILURES_TO_OPEN):
            async with gateway.chat("red") as answer:
                assert answer.status == 400
        assert gateway.parts.pool.state("ruby") is BreakerState.CLOSED


async def test_log_and_receipt_say_why_where_the_expert_names_no_code_and_where_none_was_chosen() -> None:
    async with faulty("codeless") as (gateway, _):
        async with gateway.chat("red") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, None)
        assert (await gateway.record()).error_code == "invalid_request_error"
        async with gateway.chat("red", tools=[{"type": "function"}], modalities=["audio"]) as answer:
            url = f"{gateway.gateway.url}/decisions/{answer.headers['x-coe-decision-id']}"
        async with gateway.client.get(url) as receipt:
            assert (await receipt.json())["why"] == "no expert was chosen (unsupported_by_experts)."


async def test_an_answer_that_never_ends_is_ended_by_the_total_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertConfig, "total_timeout_s", 0.5)
    async with faulty("drips") as (gateway, _):
        async with gateway.chat("red", stream=True) as answer:
            received = await answer.text()
        record = await gateway.record()
    error = orjson.loads(received.strip().split("\n\n")[-1].removeprefix("data: "))["error"]
    assert error["message"] == "expert ruby's answer took longer than 0.5 s"
    assert (error["code"], record.state.value) == ("expert_timeout", "timed_out")


async def test_an_answer_in_one_piece_has_the_same_total_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertConfig, "total_timeout_s", 0.3)
    async with (
        faulty("hang") as (gateway, _),
        gateway.chat("red") as answer,
    ):
        assert (answer.status, (await answer.json())["error"]["code"]) == (504, "expert_timeout")


async def test_errors_name_the_experts_that_failed() -> None:
    async with fault_upstream("unavailable") as upstream:
        backends = {name: provider(upstream.url) for name in ("ruby", "emerald", "plain")}
        async with running(backends) as gateway, gateway.chat("red") as answer:
            message = (await answer.json())["error"]["message"]
    assert (answer.status, message) == (503, "expert plain: loading (before it failed: ruby)")
    backends = {name: provider("http://127.0.0.1:1/v1") for name in ("ruby", "emerald", "plain")}
    async with running(backends) as gateway:
        gateway.parts.pool.alive = frozenset(backends)
        async with gateway.chat("red", model="ruby") as answer:
            assert (await answer.json())["error"]["message"] == "expert ruby cannot be reached"


async def test_the_log_says_why_an_expert_is_failing_and_for_how_long_it_is_skipped(caplog) -> None:
    caplog.set_level(logging.INFO, "coe.fleet.calls.pool")
    async with running() as gateway:
        gateway.parts.pool._prober.cancel()
        now = 0.0
        gateway.parts.pool.clock = lambda: now
        for _ in range(FAILURES_TO_OPEN):
            (await gateway.parts.pool.call("ruby")).failed("504 expert_timeout")
        now = 1.0
        await gateway.parts.pool.probe_due()
        (await gateway.parts.pool.call("ruby")).succeeded()
    assert [line.message for line in caplog.records if line.name == "coe.fleet.calls.pool"] == [
        "expert ruby is failing (504 expert_timeout) and is skipped for 1 s",
        "expert ruby answers a probe; the next request tries it",
        "expert ruby is tried with one request",
        "expert ruby answers again",
    ]


def test_a_prompt_that_moderation_refused_is_the_clients_fault() -> None:
    error = {"code": 403, "message": "flagged", "metadata": {"reasons": ["x"], "flagged_input": "..."}}
    failure = upstream_error("ruby", 403, orjson.dumps({"error": error}), {})
    assert (failure.status, failure.message, failure.is_retryable) == (403, "flagged", False)


@pytest.mark.parametrize("mode", ["refuses_key", "no_model", "redirect"])
async def test_a_wrong_entry_of_one_expert_costs_no_client_an_answer_and_is_logged(mode: str, caplog) -> None:
    async with faulty(mode) as (gateway, _):
        async with gateway.chat("red") as answer:
            assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
        assert has_failed(await gateway.record()) == (mode == "redirect")
    warned = [line.message for line in caplog.records if line.name == expert_call.__name__]
    assert len(warned) == (mode != "redirect")


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "refused", "taken"),
    [("reasoning", "max_tokens", "max_completion_tokens"), ("mistral", "max_completion_tokens", "max_tokens")],
)
async def test_the_longest_answer_goes_under_the_name_that_the_expert_takes(
    mode: str, refused: str, taken: str, is_stream: bool
) -> None:
    entries = {"ruby": {"price": {"output": 1.0}}}  # so that streams are asked for usage, too
    async with faulty(mode, entries=entries) as (gateway, upstream):
        for _ in range(2):
            async with gateway.chat("red", model="ruby", stream=is_stream, **{refused: 9}) as answer:
                assert answer.status == 200
                await answer.read()
    assert [name for each in upstream.requests for name in each if name.startswith("max_")] == [refused, taken, taken]
    assert upstream.requests[-1][taken] == 9


async def test_what_an_expert_refuses_and_no_answer_needs_is_left_out_from_then_on() -> None:
    hints = {"prompt_cache_key": "k", "metadata": {"a": "b"}, "temperature": 0, "user": "u"}
    async with faulty("groq") as (gateway, upstream):
        for _ in range(2):
            async with gateway.chat("red", **hints) as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "ruby")
                assert answer.headers["x-coe-left-out"] == "metadata, prompt_cache_key, temperature"
        upstream.mode = "refuses"
        async with gateway.chat("red", **hints) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "invalid_value")
    asked = [[name for name in hints if name in each] for each in upstream.requests]
    assert asked == [list(hints), list(hints)[1:], list(hints)[2:], ["user"], ["user"], ["user"]]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([{"error": {"code": 400, "message": "The token count (9) exceeds the maximum number of tokens"}}], TOO_LONG),
        ({"error": "This model's maximum prompt length is 8 but the request contains 9 tokens"}, TOO_LONG),
        ({"message": "The input (9 tokens) is longer than the model's context length (8 tokens)."}, TOO_LONG),
        ({"error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8"}}, TOO_LONG),
        ({"detail": "tokens are missing"}, None),
        ({"object": "error", "message": {"detail": [{"loc": ["body"], "msg": "no tokens"}]}}, None),
        ({"detail": [{"type": "missing", "loc": ["body", "tokens"], "msg": "Field required", "input": "x"}]}, None),
    ],
)
def test_refusals_are_read_in_the_forms_and_words_of_providers(body: object, code: str | None) -> None:
    """Gemini, xAI, SGLang, Anthropic, servers made with FastAPI, and Mistral."""
    error = upstream_error("ruby", 400, orjson.dumps(body), {})
    assert ("token" in error.message, error.code) == (True, code)


@pytest.mark.parametrize("status", [408, 498])
def test_a_provider_without_room_or_time_leaves_the_request_to_another(status: int) -> None:
    assert upstream_error("ruby", status, b'{"error":{"message":"later"}}', {}).is_retryable


def test_a_status_that_http_does_not_know_is_a_broken_answer() -> None:
    error = upstream_error("ruby", 999, b"", {})
    assert (error.status, error.is_retryable) == (502, True)


async def test_a_whole_answer_to_a_request_for_a_stream_becomes_one() -> None:
    async with faulty("whole") as (gateway, _):
        messages, options = [{"role": "user", "content": "red"}], {"include_usage": True}
        async with (
            AsyncOpenAI(base_url=gateway.gateway.url, api_key="unused", max_retries=0) as client,
            client.chat.completions.stream(model="auto", messages=messages, stream_options=options) as stream,
        ):
            answer = await stream.get_final_completion()
        async with gateway.chat("red", stream=True) as plain:
            assert plain.content_type == "text/event-stream"
            assert b'"usage":{' not in await plain.read()
        record = await gateway.record()
    first, second = answer.choices
    assert (first.message.content, first.finish_reason) == ("hello", "stop")
    assert [call.id for call in second.message.tool_calls] == ["call-1", "call-2"]
    assert (answer.usage.prompt_tokens, record.usage.prompt_tokens, record.usage.is_estimated) == (7, 7, False)


@pytest.mark.parametrize(
    ("mode", "is_stream", "code"),
    [
        ("stream", False, "expert_broken_answer"),
        ("shapeless", False, "expert_broken_answer"),
        ("shapeless", True, "expert_broken_answer"),
    ],
)
async def test_an_answer_that_cannot_be_what_was_asked_for_is_a_failure(mode: str, is_stream: bool, code: str) -> None:
    async with faulty(mode) as (gateway, _):
        async with gateway.chat("red", stream=is_stream) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, code)
        assert has_failed(await gateway.record())


async def test_an_error_beside_an_answer_is_not_lost() -> None:
    async with faulty("answer_and_error") as (gateway, _):
        async with gateway.chat("red") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (200, "dead")
        asked = {"model": "auto", "input": "red"}
        async with gateway.client.post(f"{gateway.gateway.url}/responses", json=asked) as answer:
            assert (answer.status, (await answer.json())["error"]["message"]) == (502, "ran out of memory")
        async with gateway.chat("red", stream=True) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, "expert_broken_answer")
        assert [(await gateway.record(place)).state.value for place in range(3)] == ["upstream_error"] * 3


@pytest.mark.parametrize(
    ("mode", "is_stream", "status", "message", "cause"),
    [
        ("whole_error", False, 502, f"expert ruby: engine died of {MASK}", "dead"),
        ("whole_error", True, 502, f"expert ruby: engine died of {MASK}", "dead"),
        (
            "wordless_error",
            False,
            502,
            "expert ruby sent an error without a message in place of an answer",
            "expert_error",
        ),
        ("first_error", True, 429, "slow down", "expert_rate_limited"),
    ],
)
async def test_an_error_in_place_of_an_answer_has_a_status_of_its_own_and_another_expert_is_tried(
    mode: str, is_stream: bool, status: int, message: str, cause: str
) -> None:
    async with faulty(mode) as (gateway, _):
        async with gateway.chat("red", stream=is_stream) as answer:
            assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
        assert (await gateway.record()).failures == {"ruby": cause}
        gateway.parts.pool.alive = frozenset(echoes())
        async with gateway.chat("red", model="ruby", stream=is_stream) as answer:
            assert (answer.status, (await answer.json())["error"]["message"]) == (status, message)


@pytest.mark.parametrize("code", ["not_ready", "misconfigured", "expert_unreachable", "expert_out_of_quota"])
async def test_what_an_expert_says_in_our_words_is_not_ours(code: str) -> None:
    error = {"message": "as another gateway says it", "type": code, "param": None, "code": code}
    failure = upstream_error("ruby", 503, orjson.dumps({"error": error}), {})
    assert (failure.code, failure.logged) == (None, "api_error")
    async with faulty("dies") as (gateway, upstream):
        upstream.lead = (events(WORDS[0], orjson.dumps({"error": error})),)
        async with gateway.chat("red", stream=True) as answer:
            assert code.encode() in await answer.read()
        record = await gateway.record()
        assert (record.error_code, has_failed(record)) == ("expert_error", True)


ROLE = orjson.dumps({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})


@pytest.mark.parametrize(
    ("lead", "cause"),
    [
        ((), "expert_broken_answer"),
        ((b": OPENROUTER PROCESSING\n\n",), "expert_broken_answer"),
        ((b": ping\n\n", events(ROLE)[:9], events(ROLE)[9:]), "expert_broken_answer"),
        ((b": ping\n\n", events(ERROR_EVENT)[:20], events(ERROR_EVENT)[20:]), "engine_dead"),
        (
            (events(b'{"id":"c","error":{"message":"x","code":502},"choices":[{"finish_reason":"error"}]}'),),
            "api_error",
        ),
    ],
)
async def test_an_expert_that_dies_before_it_says_anything_is_followed_by_another(
    lead: tuple[bytes, ...], cause: str
) -> None:
    async with faulty("dies") as (gateway, upstream):
        upstream.lead = lead
        async with gateway.chat("red", stream=True) as answer:
            received = await answer.read()
        assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain")
        assert received.endswith(b"data: [DONE]\n\n")
        assert (await gateway.record()).failures == {"ruby": cause}
        async with gateway.chat("red", model="ruby", stream=True) as answer:
            assert (answer.status, answer.content_type) == (502, "application/json")


@pytest.mark.parametrize(
    ("lead", "message"),
    [
        (b'"metadata":{"error":"x"},"error":null}}', "expert ruby sent an empty stream"),
        (b'"error":{"code":"server_error","message":"it broke"}}}', "expert ruby: it broke"),
    ],
)
async def test_only_the_error_of_an_event_counts_and_not_what_a_client_named_so(lead: bytes, message: str) -> None:
    pieces = [events(b'{"type":"response.created","response":{' + lead)[:-2], b"\n\n"]
    response = BackendResponse(200, chunks_of(pieces), {"content-type": "text/event-stream"})
    with pytest.raises(RouterError, match=message):
        await expert_answer.read_beginning("ruby", response)


async def test_comments_do_not_wait_for_what_comes_behind_them(monkeypatch) -> None:
    monkeypatch.setattr(expert_answer, "MAX_LEAD_S", 0.01)
    async with faulty("pings") as (gateway, upstream), gateway.chat("red", stream=True) as answer:
        assert (answer.headers["x-coe-expert"], await answer.content.readline()) == ("ruby", b": ping\n")
        upstream.gate.set()
        assert (await answer.read()).endswith(STREAM)
    async with faulty("pings") as (gateway, upstream):
        async with gateway.chat("red", stream=True) as answer:
            await answer.content.readline()
        await until(upstream.cancelled.is_set, "the expert is left, too")


async def test_an_engine_that_was_put_to_sleep_is_passed_over_and_named(gateway: Running) -> None:
    gateway.parts.pool.set_asleep(frozenset({"ruby"}))
    async with gateway.chat("red") as answer:
        assert (answer.status, answer.headers["x-coe-expert"] == "ruby") == (200, False)
    async with gateway.chat("red", model="ruby") as answer:
        assert answer.status == 503
        assert "(ruby is asleep)" in (await answer.json())["error"]["message"]
