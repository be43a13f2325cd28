"""Reading a chat request."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from coe.base.json_text import to_json
from coe.gateway.chat_request import MAX_SYSTEM_CHARS, ChatRequest, chat_request, json_object, last_asks
from coe.gateway.http.asgi import decode_json
from coe.gateway.http_errors import ApiError
from coe.router.capabilities import resolve_model
from coe.router.config.gateway import GatewayConfig
from coe.router.types import CUT_MARK, cap, unwrap


def read(raw: bytes) -> ChatRequest:
    return chat_request(json_object(decode_json(raw)), GatewayConfig())


def decoded(messages: list[dict[str, Any]], **fields: Any) -> ChatRequest:
    return read(json.dumps({"model": "auto", "messages": messages, **fields}).encode())


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_the_last_human_ask_is_classified() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "42 files"}
    assert decoded([user("first"), {"role": "assistant", "content": "yes"}, user(" second \n")]).text == "second"
    assert decoded([{"role": "system", "content": "be kind"}, user("list files"), call, result]).text == "list files"
    assert (
        decoded([user("what is this"), user([{"type": "image_url", "image_url": {"url": "x"}}])]).text == "what is this"
    )
    assert decoded([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])]).text == "a\nb"
    assert decoded([user("question"), user("   ")]).text == "question"
    assert decoded([user("")]).text == ""
    assert decoded([{"role": "system", "content": "only rules"}]).text == ""


def test_wrappers_of_agent_programs_are_stripped() -> None:
    wrapped = "<system-reminder>use tools</system-reminder>fix the bug<system-reminder>x</system-reminder>"
    assert unwrap(wrapped) == "fix the bug"
    assert unwrap("<environment_details>cwd</environment_details><task>sort it</task> trailer") == "sort it"
    assert unwrap("a <b> c <system-reminder> open") == "a <b> c <system-reminder> open"
    only_wrapping = user("<system-reminder>nothing from a person</system-reminder>")
    assert last_asks([user("real ask"), only_wrapping], 100, 9) == ["real ask"]


def test_stripping_is_linear() -> None:
    """Unclosed tags by the hundred thousand: quadratic stripping would take minutes."""
    hostile = "<system-reminder>" * 200_000
    begin = time.process_time()
    assert unwrap(hostile) == hostile
    assert unwrap(hostile + "</system-reminder>" * 200_000).startswith("</system-reminder>")
    assert time.process_time() - begin < 5


def test_long_asks_keep_head_and_tail() -> None:
    text = "HEAD" + "x" * 10_000 + "TAIL"
    short = cap(text, 100)
    assert len(short) <= 100
    assert short.startswith("HEAD")
    assert short.endswith("TAIL")
    assert CUT_MARK in short
    assert cap("short", 100) == "short"


def test_facts() -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    facts = decoded(
        [{"role": "system", "content": "abc"}, user("defg"), {"role": "assistant", "content": ""}, user("h")],
        tools=[tool],
        response_format={"type": "json_schema", "json_schema": {}},
        logprobs=True,
        max_tokens=9,
    ).facts
    assert (facts.turns, facts.prompt_chars, facts.max_output_tokens) == (2, 8 + len(to_json([tool])), 9)
    assert (facts.has_tools, facts.wants_json, facts.wants_logprobs, facts.has_image) == (True, True, True, False)
    assert not decoded([user("x")], tools=[tool], tool_choice="none").facts.has_tools
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": "a", "tool_calls": [call]}
    assert decoded([user("x"), called]).facts.prompt_chars == 2 + len(to_json([call]))
    assert decoded([user("x")], max_tokens=9, max_completion_tokens=5).facts.max_output_tokens == 5
    assert decoded([user([{"type": "image_url", "image_url": {}}])]).facts.has_image


def test_session_identity() -> None:
    system, first = {"role": "system", "content": "s"}, user("first")
    one = decoded([system, first]).session
    assert decoded([system, first, {"role": "assistant", "content": "a"}, user("next")]).session == one
    assert decoded([system, user("other")]).session != one
    assert len(decoded([user("long " * 1000)]).session) < 100
    folder = user("<environment_context>/repo</environment_context>")  # the same in each session of an agent
    assert decoded([system, folder, first]).session != decoded([system, folder, user("other")]).session
    assert not decoded([system, folder, first]).facts.continues
    assert decoded([system, folder, first, {"role": "assistant", "content": "a"}, user("next")]).facts.turns == 2
    assert decoded([user("anything")], user="u1").session == decoded([user("else")], user="u1").session
    assert decoded([user("x")], metadata={"session_id": "m"}).session == decoded([user("y")], user="m").session


def test_duplicate_keys_are_refused_and_repeated_words_are_not() -> None:
    with pytest.raises(ApiError, match="duplicate key"):
        read(b'{"model":"auto","messages":[{"role":"user","content":"x"}],"stream":false,"stream":true}')
    schema = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"model": {}, "user": {}}}}}
    assert decoded([user('"model":"x"')], tools=[schema], user="u").model == "auto"


def test_a_double_is_found_among_many_keys() -> None:
    many = ",".join(f'"k{i}":1' for i in range(40_000))
    body = f'{{"model":"auto","metadata":{{{many}%s}},"messages":[{{"role":"user","content":"x"}}]}}'
    assert read((body % "").encode()).model == "auto"
    with pytest.raises(ApiError, match='duplicate key "k7"'):
        read((body % ',"k7" : 2').encode())


def test_a_number_too_long_to_be_read_is_refused() -> None:
    body = b'{"model":"auto","messages":[{"role":"user","content":"x"}],"metadata":{"n":%s}}'
    assert read(body % (b"9" * 4000)).body["metadata"] == {"n": 10**4000 - 1}
    for digits in (b"9" * 5000, b"1e400"):
        with pytest.raises(ApiError, match="not valid JSON") as error:
            read(body % digits)
        assert (error.value.status, error.value.code) == (400, "invalid_json")


def test_resolve_model() -> None:
    names = (("a", "b"), ("default", "cheap"), {})
    assert resolve_model("auto", *names).policy == "default"
    assert resolve_model("auto:cheap", *names).policy == "cheap"
    assert resolve_model("b", *names).experts == ("b",)
    for unknown in ("c", "auto:", "auto:x", "AUTO", "b:cheap"):
        assert resolve_model(unknown, *names) is None


def test_earlier_asks_come_newest_first_and_only_so_many() -> None:
    answer = {"role": "assistant", "content": "yes"}
    asked = decoded([user("one"), answer, user("two"), answer, user("three")])
    assert (asked.text, asked.earlier) == ("three", ("two", "one"))
    assert decoded([user("alone")]).earlier == ()
    assert len(decoded([user(f"ask {i}") for i in range(50)]).earlier) == GatewayConfig.max_earlier


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_system_prompt_is_read_up_to_a_bound(role: str) -> None:
    asked = decoded([{"role": role, "content": [{"type": "text", "text": " Translate. "}]}, user("three")])
    assert (asked.system, asked.text) == ("Translate.", "three")
    assert len(decoded([{"role": role, "content": "x" * 10_000}, user("three")]).system) == MAX_SYSTEM_CHARS
    assert decoded([user("three")]).system == ""


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"temperature": 2.5}, "'temperature' is 2.5; allowed: a number from 0 to 2"),
        ({"temperature": "hot"}, "'temperature' is 'hot'; allowed: a number from 0 to 2"),
        ({"temperature": True}, "'temperature' is True; allowed: a number from 0 to 2"),
        ({"top_p": -0.1}, "'top_p' is -0.1; allowed: a number from 0 to 1"),
        ({"presence_penalty": 3}, "'presence_penalty' is 3; allowed: a number from -2 to 2"),
        ({"tools": [None]}, "'tools[0]' must be an object, got null"),
        ({"functions": ["f"]}, "'functions[0]' must be an object, got a string"),
        (
            {"stream_options": {"include_usage": "yes"}},
            "'stream_options.include_usage' must be true or false, got a string",
        ),
        ({"stream_options": [1]}, "'stream_options' is a list; allowed: an object"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused_by_its_name(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ApiError, match=re.escape(complaint)):
        decoded([user("x")], **fields)


def test_a_part_of_an_unknown_type_is_refused_by_its_place_and_null_fields_pass() -> None:
    with pytest.raises(ApiError, match=r"'messages\[0\].content\[1\].type' is 'hologram'; allowed: .*text"):
        decoded([user([{"type": "text", "text": "x"}, {"type": "hologram"}])])
    fields = {"temperature": None, "top_p": 1, "stream_options": {"include_usage": True}, "tools": None}
    assert decoded([user("x")], **fields).text == "x"
