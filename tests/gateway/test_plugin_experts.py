"""Experts by plugin, served by a gateway: ordinary ones, which may leave a request to the next in rank."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from coe.fleet.calls.backend import BackendRequest
from coe.fleet.calls.chat_completions import TextBackend, last_question
from coe.fleet.calls.connect import build_backends
from tests.gateway.running import Running, config_of, echoes, running
from tests.gateway.small_router import EXPERTS


def short(body: Mapping[str, object]) -> str | None:
    """Answers texts of few words, and leaves others to the next expert."""
    return "fine" if len(last_question(body).split()) <= 3 else None


@asynccontextmanager
async def composition() -> AsyncIterator[Running]:
    """Three experts, of which `ruby`, planned for what is red, is the plugin."""
    async with running({**echoes(), "ruby": TextBackend("short", short)}) as gateway:
        yield gateway


async def test_it_answers_whole_and_as_a_stream() -> None:
    async with composition() as gateway:
        async with gateway.chat("a red rose") as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "fine"
            assert answer.headers["x-coe-expert"] == "ruby"
            assert "x-coe-fallback" not in answer.headers
        async with gateway.chat("a red rose", stream=True) as streamed:
            assert b'"fine"' in await streamed.read()
        assert (await gateway.record()).usage.completion_tokens == 0


async def test_what_it_leaves_to_others_goes_to_the_next_and_is_no_fault_of_its() -> None:
    """More often than further tries are allowed: nobody has worked on the request before."""
    async with composition() as gateway:
        for number in range(25):
            async with gateway.chat("a red rose of ours") as answer:
                assert answer.status == 200, await answer.text()
                assert answer.headers["x-coe-fallback"] == "failover:ruby"
                assert answer.headers["x-coe-expert"] != "ruby"
            record = await gateway.record(number)
            assert (record.decision.expert, record.failures) == ("ruby", {"ruby": "expert_abstained"})
        assert "ruby" in gateway.parts.pool.alive
        async with gateway.chat("a red rose") as answer:
            assert answer.headers["x-coe-expert"] == "ruby"


async def test_a_client_that_names_it_hears_that_it_has_no_answer() -> None:
    async with composition() as gateway, gateway.chat("a red rose of ours", model="ruby") as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (422, "expert_abstained")
        assert "short has no answer to this request" in error["message"]


async def test_the_entry_gives_the_plugin_its_options_and_secrets() -> None:
    entry = {"engine": "plugin", "model": "echo", "params": {"delay_s": 0}, "params_env": {"model": "NAME_OF_IT"}}
    config = config_of(sections={"experts": {name: entry for name in EXPERTS}})
    backends = build_backends(config, {}, {}, {"NAME_OF_IT": "parrot"})
    response = await backends["ruby"].send(BackendRequest({"messages": [{"role": "user", "content": "hi"}]}))
    assert b'"parrot"' in b"".join([chunk async for chunk in response.chunks])
