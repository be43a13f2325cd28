"""Names of models that apps have built in, and what they mean here."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from coe.base.errors import ConfigError
from coe.fleet.calls.replicas import FAILURES_TO_OPEN
from coe.fleet.explain import reason_in_words
from coe.router.types import DecisionReason
from tests.gateway.fault_upstream import FaultUpstream, fault_upstream
from tests.gateway.keys.test_allowed import caller
from tests.gateway.keys.test_chat_limits import Known
from tests.gateway.running import Running, config_of, echoes, faulty, provider, running
from tests.gateway.small_router import EXPERTS

ALIASES = {"gpt-4o": "auto", "claude-*": "plain", "claude-opus*": "auto:wild", "*": "emerald"}
SECTIONS = {"aliases": ALIASES}
BIG = {"aliases": {"big": ["ruby", "emerald"]}}


@pytest.mark.parametrize(
    ("model", "expert", "policy"),
    [
        ("gpt-4o", "ruby", "default"),
        ("claude-sonnet-4-5", "plain", None),
        ("claude-opus-4-1", None, "wild"),
        ("o3", "emerald", None),
        ("plain", "plain", None),
        ("auto", "ruby", "default"),
    ],
)
async def test_an_alias_means_what_the_file_says(model: str, expert: str | None, policy: str | None) -> None:
    async with running(sections=SECTIONS) as gateway:
        async with gateway.chat("red", model=model) as answer:
            assert answer.status == 200
        record = await gateway.record()
    assert answer.headers.get("x-coe-alias") == (None if model in ("auto", "plain") else model)
    assert record.requested_model == model
    assert record.served_expert == answer.headers["x-coe-expert"]
    assert record.decision is not None
    if expert is not None:
        assert record.served_expert == expert
    if policy is not None:
        assert record.decision.policy == policy


async def test_a_name_in_a_header_cannot_end_it() -> None:
    async with running(sections=SECTIONS) as gateway, gateway.chat("red", model="a b\r\nx: ü/1:2") as answer:
        assert answer.headers["x-coe-alias"] == "a%20b%0D%0Ax:%20%C3%BC/1:2"


async def test_models_lists_names_and_finds_patterns() -> None:
    async with running(sections={"aliases": {"gpt-4o": "auto", "claude-*": "plain"}}) as gateway:
        async with gateway.client.get(f"{gateway.gateway.url}/models") as answer:
            listed = {card["id"]: card["owned_by"] for card in (await answer.json())["data"]}
        async with gateway.client.get(f"{gateway.gateway.url}/models/claude-x/y") as answer:
            assert (answer.status, (await answer.json())["id"]) == (200, "claude-x/y")
        async with gateway.client.get(f"{gateway.gateway.url}/models/gpt-5") as answer:
            assert answer.status == 404
        async with gateway.chat(model="gpt-5") as answer:
            error = (await answer.json())["error"]
    assert listed["gpt-4o"] == "coe-alias"
    assert "claude-*" not in listed
    assert answer.status == 404
    assert "gpt-4o" in error["message"]


@pytest.mark.parametrize(
    ("alias", "meant", "problem"),
    [
        ("gpt-4o", "rubi", "aliases.gpt-4o: unknown model 'rubi'"),
        ("gpt-4o", "auto:cheap", "aliases.gpt-4o: unknown model 'auto:cheap'"),
        ("gpt-4o", "*", "aliases.gpt-4o: unknown model '*'"),
        (
            "gpt-4o",
            ["ruby", "rubi"],
            "aliases.gpt-4o.1: unknown expert 'rubi'; did you mean 'ruby'? allowed: emerald, plain",
        ),
        ("gpt-4o", ["ruby", "auto"], "aliases.gpt-4o.1: unknown expert 'auto'; allowed"),
        ("gpt-4o", ["gpt-4o", "ruby"], "aliases.gpt-4o.0: unknown expert 'gpt-4o'; allowed"),
        ("gpt-4o", ["ruby", "ruby"], "aliases.gpt-4o.1: 'ruby' is in the list already; allowed: each expert once"),
        ("gpt-4o", [], "aliases.gpt-4o: must have at least 1 entries (got [])"),
        ("gpt-4o", ["ruby", 7], "aliases.gpt-4o.1: must be text (got 7)"),
        ("gpt-4o", 7, "aliases.gpt-4o: must be a list (got 7)"),
        ("ruby", "auto", "aliases.ruby: is a name already"),
        ("auto", "ruby", "aliases.auto: is a name already"),
        ("a*b", "auto", "aliases"),
        ("", "auto", "aliases"),
    ],
)
def test_an_alias_that_cannot_hold_is_refused(alias: str, meant: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(problem)):
        config_of(sections={"aliases": {alias: meant}})


@asynccontextmanager
async def listed(mode: str = "ok", **options: Any) -> AsyncIterator[tuple[Running, FaultUpstream]]:
    """A gateway whose expert ruby is a fault upstream; `big` means ruby and then emerald."""
    async with faulty(mode, sections=BIG, **options) as (it, upstream):
        yield it, upstream


async def served(it: Running, **fields: Any) -> tuple[str, str | None]:
    """Who served `big`, and the header that says whether another one failed."""
    async with it.chat("red", model="big", **fields) as answer:
        assert answer.status == 200, await answer.text()
        await answer.read()
        assert answer.headers["x-coe-alias"] == "big"
        return str(answer.headers["x-coe-expert"]), answer.headers.get("x-coe-fallback")


@pytest.mark.parametrize("has_router", [True, False])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("mode", ["unavailable", "fault", "reset", "overloaded", "busy"])
async def test_the_next_of_the_list_answers_where_one_fails(*, mode: str, stream: bool, has_router: bool) -> None:
    async with listed(mode, has_router=has_router) as (it, _):
        assert await served(it, stream=stream) == ("emerald", "failover:ruby")
        record = await it.record()
        async with it.client.get(f"{it.gateway.url}/decisions/{record.decision_id}") as receipt:
            why = (await receipt.json())["why"]
    assert (record.requested_model, record.served_expert, list(record.failures)) == ("big", "emerald", ["ruby"])
    assert record.decision is not None
    assert (record.decision.reason, record.decision.ranking) == (DecisionReason.EXPLICIT, ("ruby", "emerald"))
    assert why.startswith("the client named ruby; ruby failed (")
    assert why.endswith("so emerald was asked")


async def test_the_first_of_the_list_answers_while_it_can_and_rests_where_it_cannot() -> None:
    async with listed() as (it, upstream):
        assert await served(it) == ("ruby", None)
        it.stop_clock()
        for _ in range(FAILURES_TO_OPEN):
            (await it.parts.pool.call("ruby")).failed()
        assert await served(it) == ("emerald", None)
        record = await it.record(1)
        assert record.decision is not None
        assert (record.decision.ranking, record.decision.excluded) == (("emerald",), {"ruby": "is not reachable"})
        assert reason_in_words(record.decision).startswith("the client named emerald")
    assert len(upstream.requests) == 1


async def test_an_expert_at_its_limit_is_passed_over() -> None:
    async with listed("busy") as (it, upstream):
        it.stop_clock()
        assert [await served(it) for _ in range(2)] == [("emerald", "failover:ruby"), ("emerald", None)]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(("retries", "last"), [(0, "ruby"), (3, "emerald")])
async def test_nobody_else_is_asked(retries: int, last: str) -> None:
    async with fault_upstream("unavailable") as upstream:
        down = provider(upstream.url)
        async with (
            running(echoes(ruby=down, emerald=down), sections=BIG, retries=retries) as it,
            it.chat("red", model="big") as answer,
        ):
            assert (answer.status, answer.headers["x-coe-expert"]) == (503, last)
            assert (answer.headers.get("x-coe-fallback") is None) == (last == "ruby")


async def test_what_has_begun_is_not_begun_again() -> None:
    async with listed("cut") as (it, _), it.chat("red", model="big", stream=True) as answer:
        assert b"error" in await answer.read()
        assert answer.headers["x-coe-expert"] == "ruby"


async def test_an_expert_that_cannot_take_the_request_is_passed_over() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    messages = [{"role": "user", "content": picture}]
    async with running(sections=BIG, entries={"emerald": {"supports": ["images", "json"]}}) as it:
        assert await served(it, messages=messages) == ("emerald", None)
    async with running(sections=BIG) as it, it.chat(model="big", messages=messages) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (400, "unsupported_by_experts")
    assert "ruby: does not take images; emerald: does not take images" in error["message"]


async def test_after_a_prompt_that_is_too_long_comes_one_with_a_larger_context() -> None:
    sections = {"aliases": {"big": ["ruby", "plain", "emerald"]}}
    async with faulty("too_long", sections=sections, entries={"emerald": {"context_tokens": 9000}}) as (it, _):
        assert await served(it) == ("emerald", "failover:ruby")


@pytest.mark.parametrize("path", ["messages", "responses"])
async def test_the_other_apis_take_the_list_too(path: str) -> None:
    body = {"model": "big", "max_tokens": 9, "messages": [{"role": "user", "content": "red"}]}
    body = body if path == "messages" else {"model": "big", "input": "red"}
    async with listed("unavailable") as (it, _), it.client.post(f"{it.gateway.url}/{path}", json=body) as answer:
        assert answer.status == 200, await answer.text()
        assert (answer.headers["x-coe-expert"], answer.headers["x-coe-fallback"]) == ("emerald", "failover:ruby")


@pytest.mark.parametrize(
    ("allowed", "expert"), [(("ruby", "emerald"), "ruby"), (("emerald", "plain"), "emerald"), (("plain",), None)]
)
async def test_a_key_gets_the_experts_of_the_list_that_it_may_use(allowed: tuple[str, ...], expert: str | None) -> None:
    async with running(auth=Known(caller(*allowed, policies=())), sections=BIG) as it:
        async with it.client.get(f"{it.gateway.url}/models") as answer:
            names = [card["id"] for card in (await answer.json())["data"]]
        assert names == [*(name for name in EXPERTS if name in allowed), *(["big"] if expert else [])]
        async with it.client.get(f"{it.gateway.url}/models/big") as answer:
            assert answer.status == (200 if expert else 404)
        if expert is not None:
            assert await served(it) == (expert, None)
        else:
            async with it.chat("red", model="big") as answer:
                assert answer.status == 404
                assert (await answer.json())["error"]["message"].endswith("allowed: plain")


async def test_a_failure_leads_to_no_expert_that_the_key_may_not_use() -> None:
    auth = Known(caller("ruby", "plain"))
    async with listed("unavailable", auth=auth) as (it, _), it.chat("red", model="big") as answer:
        assert (answer.status, answer.headers["x-coe-expert"]) == (503, "ruby")
