"""Budgets and pins hold when experts are down or fail: one order, in the answer, the log and the receipt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coe.router.capabilities import Capabilities
from coe.router.config.policy import Budgets
from coe.router.pipeline import Router
from coe.router.policy.map_solver import ExpertCosts, solve_map
from coe.router.policy.solved_policy import SolvedPolicy
from tests.gateway.fault_upstream import fault_upstream
from tests.gateway.running import Running, echoes, provider, running
from tests.gateway.small_router import EXPERTS, QUALITY, small_router
from tests.router.exploring import explored

CENTS = (0.001, 0.002, 0.1)  # ruby, emerald, plain


def priced(*, limit: float = 0.003, pins: dict[int, int] | None = None, share: float = 0.0) -> Router:
    """The colour router whose default policy bounds the cost; `plain` is beyond it."""
    zeros = np.zeros(3, np.float32)
    cost = np.tile(np.array(CENTS, np.float32), (3, 1))
    costs = ExpertCosts(zeros, np.arange(3), zeros, zeros, cost, np.zeros((3, 3), np.float32))
    quality = np.array(QUALITY, np.float32)
    solution = solve_map(quality, np.full(3, 1 / 3, np.float32), costs, Budgets(cost_usd=limit), pins)
    policy = SolvedPolicy(solution, pins or {}, explored(share))
    return replace(small_router(), policies={"default": policy, "wild": policy}, costs=costs)


async def take_down(gateway: Running, *names: str) -> None:
    """For good: time does not pass for the breakers."""
    gateway.parts.pool.clock = lambda: 0.0
    for name in names:
        for _ in range(5):
            (await gateway.parts.pool.call(name)).failed()


async def receipt(gateway: Running, decision_id: str) -> dict:
    async with gateway.client.get(f"{gateway.gateway.url}/decisions/{decision_id}") as answer:
        return await answer.json()


async def test_next_best_runner_up_and_failover_are_one_order_within_the_budget() -> None:
    async with fault_upstream("unavailable") as upstream:
        backends = echoes(ruby=provider(upstream.url))
        async with running(backends, router=priced()) as gateway:
            async with gateway.chat("red") as answer:
                assert (answer.status, answer.headers["x-coe-expert"]) == (200, "emerald")
                assert answer.headers["x-coe-fallback"] == "failover:ruby"
            shown = await receipt(gateway, answer.headers["x-coe-decision-id"])
            decision = shown["record"]["decision"]
            assert decision["runner_up"] == "emerald"
            by_name = {each["expert"]: each for each in shown["experts"]}
            assert by_name["plain"]["lacks"] == (
                "a query of this category takes 0.1 USD; the policy allows cost_usd=0.003"
            )
            assert {name: each["rank"] for name, each in by_name.items()} == {"ruby": 1, "emerald": 2, "plain": None}
            await take_down(gateway, "ruby")
            async with gateway.chat("red") as answer:
                assert (answer.headers["x-coe-expert"], answer.headers.get("x-coe-fallback")) == ("emerald", None)


async def test_with_everybody_down_whom_the_policy_allows_the_answer_is_503_and_says_so() -> None:
    async with running(router=priced()) as gateway:
        await take_down(gateway, "ruby", "emerald")
        async with gateway.chat("red") as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"], answer.headers["retry-after"]) == (503, "no_expert_alive", "1")
        assert "ruby, emerald" in error["message"]
        assert "plain: a query of this category takes 0.1 USD" in error["message"]


async def test_what_only_an_expert_beyond_the_budget_takes_is_refused() -> None:
    capabilities = {name: Capabilities(supports=frozenset({"images"} if name == "plain" else ())) for name in EXPERTS}
    router = replace(priced(), capabilities=capabilities)
    entries = {name: {"supports": sorted(each.supports)} for name, each in capabilities.items()}
    async with running(router=router, entries=entries) as gateway:
        image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
        body = {"model": "auto", "messages": [{"role": "user", "content": image}]}
        async with gateway.client.post(f"{gateway.gateway.url}/chat/completions", json=body) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["param"]) == (400, "outside_policy", "model")
        assert "ruby: does not take images" in error["message"]


@pytest.mark.parametrize(("pins", "expected"), [({}, {"ruby", "emerald"}), ({0: 1}, {"emerald"})])
async def test_exploration_stays_within_the_budget_and_leaves_pins_alone(pins, expected) -> None:
    async with running(router=priced(pins=pins, share=0.5)) as gateway:
        experts = set()
        for number in range(40):
            async with gateway.chat("red") as answer:
                experts.add(answer.headers["x-coe-expert"])
            decision = (await gateway.record(number)).decision
            assert sum(decision.eligible_probs) == pytest.approx(1)
            assert set(decision.eligible) == set(decision.ranking) == {"ruby", "emerald"}
        assert experts == expected
