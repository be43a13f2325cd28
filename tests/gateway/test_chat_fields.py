"""Fields of a chat request, the most that each may ask for, and those that reach an engine."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from coe.base.errors import ConfigError
from coe.fleet.providers.litellm import FORWARDED
from coe.gateway.chat_request import checked_fields
from coe.gateway.http_errors import ApiError
from coe.router.config.composition import parse_config
from coe.router.config.gateway import ENTRIES, FIELDS, OPENAI, WHOLE_NUMBERS, GatewayConfig
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, config_of, echoes, faulty, provider, running

DEFAULTS = GatewayConfig()
TOOL = {"type": "function", "function": {"name": "f"}}
PART = {"type": "text", "text": "red"}


def test_every_field_of_openais_sdk_is_allowed() -> None:
    assert set(typing.get_type_hints(CompletionCreateParamsStreaming)) <= OPENAI
    assert FORWARDED <= FIELDS
    assert WHOLE_NUMBERS.keys() | ENTRIES.keys() <= FIELDS


@pytest.mark.parametrize(
    "field",
    [
        *("api_base", "base_url", "api_key", "kv_transfer_params", "extra_headers", "mock_response"),
        *("chat_template", "guided_decoding_backend", "logits_processors", "vllm_xargs", "mm_processor_kwargs"),
        *("lora", "id_slot", "cache_prompt", "cache_salt", "request_id_prefix", "request_id", "n_predict", "Model", ""),
    ],
)
async def test_check_28_fields_that_are_not_listed_reach_no_engine(field: str) -> None:
    async with faulty() as (gateway, upstream):
        for path in ("chat/completions", "route"):
            body = {"model": "ruby", "messages": [{"role": "user", "content": "red"}], field: "http://169.254.169.254/"}
            async with gateway.client.post(f"{gateway.gateway.url}/{path}", json=body) as answer:
                error = (await answer.json())["error"]
            assert (answer.status, error["code"], error["param"]) == (400, "unknown_parameter", field)
            assert repr(field) in error["message"]
            assert "169.254" not in error["message"]
        assert upstream.requests == gateway.log.records == []


def test_a_slip_of_the_pen_gets_a_suggestion() -> None:
    for wrong, meant in (("temprature", "temperature"), ("max_token", "max_tokens"), ("topk", "top_k")):
        with pytest.raises(ApiError, match=f"did you mean '{meant}'"):
            checked_fields({"model": "auto", wrong: 1}, DEFAULTS)
    with pytest.raises(ApiError) as refused:
        checked_fields({"x" * 4_000_000: 1}, DEFAULTS)
    assert len(refused.value.message) < 400


async def test_an_operator_may_allow_more() -> None:
    asked = {"vllm_xargs": {"a": 1}, "top_k": 3, "min_p": 0.1}
    async with (
        faulty(extra_fields=["vllm_xargs"]) as (gateway, upstream),
        gateway.chat("red", **asked) as answer,
    ):
        assert answer.status == 200
    assert upstream.requests[0].items() >= asked.items()
    with pytest.raises(ConfigError, match=r"gateway\.extra_fields\.0: .*'cache_salt' keeps callers apart"):
        config_of(extra_fields=["cache_salt"])


@pytest.mark.parametrize(("client_params", "effort"), [(False, "low"), (True, "high")])
async def test_the_effort_of_an_expert_stays_unless_the_policy_leaves_it_to_the_client(
    *, client_params: bool, effort: str
) -> None:
    sections = {"policies": {"default": {"client_params": client_params, "pins": {"red": "ruby"}}}}
    low = {"params": {"reasoning_effort": "low"}}
    async with faulty(provider_options=low, sections=sections) as (gateway, upstream):
        for model in ("ruby", "auto"):
            async with gateway.chat("red", model=model, reasoning_effort="high") as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "ruby")
    assert [asked["reasoning_effort"] for asked in upstream.requests] == ["low", effort]


GUIDED_FIELDS = {
    "guided_json": {"type": "object"},
    "guided_choice": ["red", "blue"],
    "guided_regex": "[a-z]+",
    "guided_grammar": 'root ::= "red"',
}


@pytest.mark.parametrize("field", GUIDED_FIELDS)
async def test_constraints_that_vllm_ignores_today_reach_it_under_their_new_name(field: str) -> None:
    value = GUIDED_FIELDS[field]
    async with fault_upstream() as upstream:
        ruby = {"ruby": {"engine": "vllm", "model": "m", "url": upstream.url}}
        async with running(echoes(ruby=provider(upstream.url)), entries=ruby) as gateway:
            async with gateway.chat("red", model="ruby", **{field: value}) as answer:
                assert answer.status == 200
            async with gateway.chat("red", model="emerald", **{field: value}) as answer:
                error = (await answer.json())["error"]
            assert (answer.status, error["code"]) == (400, "unsupported_by_experts")
            assert "emerald: would ignore structured_outputs" in error["message"]
            both = {field: value, "structured_outputs": {"json": {}}}
            async with gateway.chat("red", model="ruby", **both) as answer:
                assert (answer.status, (await answer.json())["error"]["param"]) == (400, "structured_outputs")
            async with gateway.chat("red", model="emerald", **{field: None}) as answer:
                assert answer.status == 200
    (sent,) = upstream.requests
    assert sent["structured_outputs"] == {field.removeprefix("guided_"): value}
    assert field not in sent


async def test_templates_are_told_what_a_client_says_and_nobody_goes_before_others() -> None:
    asked = {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low", "priority": 5}
    async with faulty() as (gateway, upstream):
        async with gateway.chat("red", **asked) as answer:
            assert answer.status == 200
        async with gateway.chat("red", priority=-1) as answer:
            assert (answer.status, (await answer.json())["error"]["param"]) == (400, "priority")
    assert [sent.items() >= asked.items() for sent in upstream.requests] == [True]


@pytest.mark.parametrize(
    ("field", "most", "above"),
    [
        ("max_tokens", 131_072, 131_073),
        ("max_completion_tokens", 131_072, 10**40),
        ("min_tokens", 0, -1),
        ("n", 16, 10**9),
        ("n", 1, 0),
        ("best_of", 16, 17),
        ("top_logprobs", 20, 21),
        ("prompt_logprobs", 0, -1),
        ("logprobs", True, 10**6),
        ("n", None, 1.5),
        ("stop", ["a"] * 16, ["a"] * 17),
        ("stop", "a" * 1000, ["a"] * 40_000),
        ("bad_words", ["a"] * 16, ["a"] * 17),
        ("tools", [TOOL] * 128, [TOOL] * 129),
        ("functions", [{}] * 128, [{}] * 129),
        ("logit_bias", dict.fromkeys(map(str, range(1024)), 1), dict.fromkeys(map(str, range(1025)), 1)),
        ("messages", [{"role": "user", "content": "x"}] * 2048, [{"role": "user", "content": "x"}] * 2049),
    ],
)
async def test_check_21_each_field_is_bounded(field: str, most: Any, above: Any) -> None:
    checked_fields({field: most}, DEFAULTS)
    async with faulty() as (gateway, upstream):
        async with gateway.chat("red", **{"model": "ruby", field: above}) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["param"]) == (400, field)
        assert "allowed: " in error["message"]
        assert upstream.requests == []


async def test_check_21_parts_are_bounded(gateway: Running) -> None:
    for parts, status in ((256, 200), (257, 400)):
        messages = [{"role": "user", "content": "hi"}, {"role": "user", "content": [PART] * parts}]
        async with gateway.chat(messages=messages) as answer:
            body = await answer.json()
        assert answer.status == status
    assert body["error"]["message"] == "'messages[1].content' has 257 parts; allowed: at most 256"


async def test_check_21_bounds_come_from_the_file() -> None:
    async with running(max_output_tokens=50) as gateway:
        for fields, status in (({"max_tokens": 50}, 200), ({"n": 17}, 400), ({"max_tokens": 51}, 400)):
            async with gateway.chat("red", **fields) as answer:
                assert answer.status == status, fields
        async with gateway.chat(messages=[{"role": "user", "content": "red"}] * 2049) as answer:
            assert (await answer.json())["error"]["message"] == "'messages' has 2049 entries; allowed: at most 2048"
    with pytest.raises(ConfigError, match="max_output: unknown key; did you mean 'max_output_tokens'"):
        config_of(max_output=2)


KEYS = ("canary-7f3a9c51e2b84d06", "other-0b1c2d3e4f5a6978")


async def test_check_29_callers_share_no_cached_prompts() -> None:
    async with fault_upstream() as salted, fault_upstream() as plain:
        backends = echoes(ruby=provider(salted.url, takes_cache_salt=True), emerald=provider(plain.url))
        async with running(backends, keys=KEYS) as gateway:
            for key in (*KEYS, KEYS[0]):
                headers = {"authorization": f"Bearer {key}"}
                for expert in ("ruby", "emerald"):
                    async with gateway.chat("red", model=expert, headers=headers) as answer:
                        assert answer.status == 200
                async with gateway.chat("red", model="ruby", headers=headers, cache_salt="mine") as answer:
                    assert answer.status == 400
            ids = {record.key_id for record in gateway.log.records}
        one, other, again = (request["cache_salt"] for request in salted.requests)
    assert one == again != other
    assert len(one) == len(other) == 64
    assert not any(known in salt for salt in (one, other) for known in (*KEYS, *map(str, ids)))
    assert all("cache_salt" not in request for request in plain.requests)


async def test_check_29_without_keys_there_is_one_caller() -> None:
    async with (
        faulty(provider_options={"takes_cache_salt": True}) as (gateway, upstream),
        gateway.chat("red") as answer,
    ):
        assert answer.status == 200
    assert "cache_salt" not in upstream.requests[0]


def test_check_29_vllm_alone_is_salted() -> None:
    from coe.fleet.calls.connect import build_backends

    values = config_of().model_dump(mode="json", exclude_none=True)
    url = "http://127.0.0.1:1/v1"
    values["experts"] = {
        "ruby": {"engine": "vllm", "model": "m", "url": url},
        "emerald": {"engine": "openai", "model": "m", "url": url},
    }
    backends: Any = build_backends(parse_config(values), {}, {}, {})
    assert [backend._options.takes_cache_salt for backend in backends.values()] == [True, False]
    assert [backend._options.sets_id for backend in backends.values()] == [False, True], "vLLM takes the request's"
