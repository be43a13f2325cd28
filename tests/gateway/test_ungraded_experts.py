"""Experts that nobody has graded serve `auto` where no other one can, and only there."""

from __future__ import annotations

import pytest

from coe.router.capabilities import capabilities
from tests.gateway.running import config_of, echoes, running
from tests.gateway.small_router import small_router

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
FRESH = {"engine": "echo", "model": "m", "supports": ["tools", "json"]}
NO_TOOLS = {name: {"supports": ["json"]} for name in ("ruby", "emerald", "plain")}


@pytest.mark.parametrize("budgets", [{}, {"cost_usd": 1.0}])
async def test_an_ungraded_expert_takes_what_no_other_one_can(budgets: dict[str, float]) -> None:
    backends = echoes()
    backends["fresh"] = echoes()["plain"]
    sections: dict[str, object] = {"policies": {"default": {"budgets": budgets, "exploration": "off"}}}
    sections["experts"] = {**config_of(entries=NO_TOOLS).model_dump(mode="json")["experts"], "fresh": FRESH}
    router = small_router(capabilities=capabilities(config_of(entries=NO_TOOLS)))
    async with running(backends, router=router, sections=sections) as gateway:
        async with gateway.chat("red") as answer:
            assert answer.headers["x-coe-expert"] == "ruby"
        async with gateway.chat("red", tools=TOOLS) as answer:
            if budgets:  # nobody knows what it costs
                assert answer.status == 400
                return
            assert (answer.status, answer.headers["x-coe-expert"]) == (200, "fresh")
    decision = gateway.log.records[-1].decision
    assert (decision.reason, decision.excluded["ruby"]) == ("ungraded", "does not take tools")
