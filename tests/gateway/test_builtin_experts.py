"""Experts that are not language models, served by a gateway."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np

from decision_log.decision_record import TerminalState
from fleet.wires.builtin import Options, build
from router.builtins import measured_builtins
from router.types import DecisionReason
from tests.gateway.running import Running, config_of, echoes, running
from tests.gateway.small_router import EXPERTS, small_router

SUMS = {"engine": "builtin", "model": "calculator"}


@asynccontextmanager
async def composition() -> AsyncIterator[Running]:
    """Three echoes, and a calculator that was right about 300 of 300 sums in every category."""
    entries = {name: {"engine": "echo", "model": "echo"} for name in EXPERTS} | {"sums": SUMS}
    graded = np.full((3, 1), 300.0)
    router = replace(small_router(), builtins=measured_builtins(("sums",), graded, graded, {}))
    backends = {**echoes(), "sums": build(Options(kind="calculator", name="sums"))}
    async with running(backends, router=router, sections={"experts": entries}) as gateway:
        yield gateway


async def test_a_sum_is_answered_without_a_language_model_and_logged() -> None:
    async with composition() as gateway:
        async with gateway.chat("12 * 11") as answer:
            completion = await answer.json()
        assert answer.headers["x-coe-expert"] == "sums"
        assert "x-coe-fallback" not in answer.headers or answer.headers["x-coe-fallback"] == "uncertain"
        assert (completion["model"], completion["choices"][0]["message"]["content"]) == ("sums", "132")
        record = await gateway.record()
        assert (record.decision.reason, record.served_expert, record.usage.completion_tokens) == ("builtin", "sums", 0)
        assert record.inputs.facts.answering == ("sums",)
        async with gateway.chat("12 * 11", stream=True) as streamed:
            assert b'"132"' in await streamed.read()


async def test_other_requests_go_where_they_went_and_the_receipt_says_who_abstained() -> None:
    async with composition() as gateway:
        for fields in ({}, {"response_format": {"type": "json_object"}}):
            async with gateway.chat("a red rose" if not fields else "12 * 11", **fields) as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "plain" if fields else "ruby")
        record = await gateway.record()
        assert record.decision.builtins == {"sums": "abstains"}
        assert record.decision.reason is DecisionReason.MAP


async def test_a_client_that_names_it_hears_that_it_abstains() -> None:
    async with composition() as gateway:
        async with gateway.chat("tell me a story", model="sums") as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["message"]) == (422, "abstained", "expert sums abstains")
        assert (await gateway.record()).state is TerminalState.ABSTAINED
        async with gateway.client.get(f"{gateway.root}/metrics") as answer:
            assert 'coe_requests_total{state="abstained",status="422"} 1.0' in await answer.text()
        async with gateway.chat("12 * 11", model="sums") as answer:
            assert (await answer.json())["choices"][0]["message"]["content"] == "132"


def test_a_composition_of_builtin_experts_alone_is_refused() -> None:
    import pytest

    from base.errors import ConfigError

    with pytest.raises(ConfigError, match="experts: all are of engine 'builtin'"):
        config_of(sections={"experts": {"sums": SUMS}})


async def test_the_console_says_that_a_program_has_no_parameters() -> None:
    async with composition() as gateway, gateway.client.get(f"{gateway.root}/console/experts") as answer:
        shown = dict(re.findall(r'row">(\w+).*?"Parameters" class="n">(.+?)</td>', await answer.text(), re.DOTALL))
    assert shown == {**dict.fromkeys(EXPERTS, "–"), "sums": "none"}
