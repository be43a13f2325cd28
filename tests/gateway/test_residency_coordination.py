"""Gateways that share engines: one has the turn, the others follow, and each can go on where another ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest

from coe.base.errors import BackendError
from coe.fleet.pool import ExpertPool
from coe.fleet.residency.changes import forward_clock
from coe.fleet.residency.controller import Controller
from coe.fleet.residency.coordination import Heard, Note, Report, View
from coe.fleet.residency.memory import Memory
from coe.fleet.residency.scheduler import Goal, ResidencyPolicy, Scheduler, Step
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.tasks import stop_task
from coe.gateway.residency_coordination import RedisCoordination
from coe.router.residency_config import ResidencyConfig
from tests.fake_vllm.engine import FakeEngine
from tests.fleet.residency.driver import resident
from tests.gateway.running import Running, echoes
from tests.gateway.small_router import EXPERTS
from tests.gateway.test_residency import asked, eager, engines, gateway_over
from tests.waiting import DEADLINE_S, until


def coordination_of(redis_url: str, urls: Mapping[str, str]) -> RedisCoordination:
    """A coordination whose leases last longer than a test on a busy machine."""
    return RedisCoordination(redis_url, [((name,), url) for name, url in urls.items()], lease_s=60.0)


async def end_lease(coordination: RedisCoordination) -> None:
    """Effect of silence."""
    await coordination._client.hdel(f"{coordination._prefix}:reports", coordination.me)
    assert await coordination._client.delete(f"{coordination._prefix}:holder") == 1


@asynccontextmanager
async def controller(redis_url: str, urls: Mapping[str, str], policy: ResidencyPolicy) -> AsyncIterator[Controller]:
    """A controller with a pool of its own, as another process has them."""
    scheduler = Scheduler(tuple(resident(name) for name in EXPERTS), Memory({"0": 41.5}), policy)
    actuator = VllmActuator(lambda: {name: (url,) for name, url in urls.items()})
    kept = Controller(
        scheduler, actuator, ResidencyConfig(memory_gb=41.5), coordination=coordination_of(redis_url, urls)
    )
    await kept.start(ExpertPool(echoes()))
    try:
        yield kept
    finally:
        await kept.aclose()


async def test_what_the_holder_of_a_turn_says_after_it_has_ended_counts_for_nothing(redis_url: str) -> None:
    urls = dict.fromkeys(EXPERTS, "http://127.0.0.1:1/v1")
    first, second = coordination_of(redis_url, urls), coordination_of(redis_url, urls)
    note = Note(category="red", quality={"ruby": 0.5}, begins=None)
    try:
        assert (await first.exchange(Report(), [], 0, None)).turn == 1
        heard = await second.exchange(Report(running={"ruby": 2}), [note], 0, None)
        assert (heard.turn, heard.view, list(heard.reports)) == (0, None, [])
        heard = await first.exchange(Report(), [], 1, View(version="1.1"))
        assert (list(heard.notes), heard.reports) == ([note], {second.me: Report(running={"ruby": 2})})
        await end_lease(first)
        assert (await second.exchange(Report(), [], 0, None)).turn == 2
        await second.exchange(Report(), [], 2, View(version="2.1"))
        heard = await first.exchange(Report(), [], 1, View(version="1.2"))
        assert heard.turn == 0
        assert heard.view == View(version="2.1")
        await second.aclose()
        assert (await first.exchange(Report(), [], 1, View(version="1.3"))).turn == 3
        heard = await first.exchange(Report(), [], 3, None)
        assert heard.view == View(version="2.1")
    finally:
        await first.aclose()


async def test_the_wake_that_a_killed_process_had_begun_is_ended_by_the_next(redis_url: str) -> None:
    made: dict[str, FakeEngine] = {}
    async with engines(["emerald"], made) as urls:
        killed = coordination_of(redis_url, urls)
        goal = Goal("emerald", (Step("plain", Residency.SLEEP_1),))
        serving = frozenset({"ruby"})
        assert (await killed.exchange(Report(), [], 0, None)).turn == 1
        await killed.exchange(Report(), [], 1, View(version="1.1", serving=serving, goal=goal))
        async with aiohttp.ClientSession() as client:  # it had got so far
            root = urls["emerald"].removesuffix("/v1")
            async with client.post(f"{root}/wake_up?tags=weights") as answer:
                assert answer.status == 200
        async with controller(redis_url, urls, ResidencyPolicy()) as next_one:
            assert next_one.view.serving == serving
            assert not next_one.decides
            await end_lease(killed)
            await until(lambda: next_one.decides and next_one.view.goal is None)
            assert not made["emerald"].is_sleeping
            assert next_one.view.serving == {"ruby", "emerald"}
        await killed.aclose()


async def test_a_fault_does_not_leave_the_engines_to_nobody(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with engines(["emerald"]) as urls, controller(redis_url, urls, ResidencyPolicy()) as kept:
        monkeypatch.setattr("coe.fleet.residency.controller.LOOK_EVERY_S", 0.02)
        with monkeypatch.context() as patch:
            patch.setattr(kept.scheduler, "step", lambda now_s: [][0])
            await until(lambda: "IndexError while engines were looked at" in caplog.text)
        await kept.wait_for("emerald")
        assert "emerald" in kept.view.serving


async def test_a_process_without_redis_is_not_taken_for_one_that_was_stopped(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock goes on though no exchange succeeds; who was stopped stays behind until it has looked."""
    calls: list[str] = []

    async def away(*_: object) -> None:
        calls.append("exchange")
        raise BackendError("Redis cannot be asked", status=503)

    async with engines(["emerald"]) as urls, controller(redis_url, urls, ResidencyPolicy()) as kept:
        monkeypatch.setattr(kept._coordination, "exchange", away)
        await stop_task(kept._tasks[0])  # else its looks count
        kept._told_at_s = earlier = forward_clock() - 30.0
        await until(lambda: kept._told_at_s > earlier + 29.0)
        kept._told_at_s, before = -math.inf, len(calls)
        await until(lambda: len(calls) > before + 2)
        assert kept.is_behind


async def test_a_process_that_was_stopped_asks_who_sleeps_before_it_sends_a_request(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, FakeEngine] = {}
    asleep_when_asked: list[str] = []
    async with engines(["emerald"], made) as urls:
        coordination = coordination_of(redis_url, urls)
        async with (
            controller(redis_url, urls, ResidencyPolicy()) as other,
            gateway_over(urls, ResidencyPolicy(), ["emerald"], coordination=coordination) as it,
        ):
            assert await asked(it, "red") == "ruby"
            stopped = it.parts.residency
            assert other.decides
            for task in stopped._tasks:
                await stop_task(task)
            await coordination._client.hdel(f"{coordination._prefix}:reports", coordination.me)  # what silence does
            watch("ruby", made["ruby"], asleep_when_asked)
            await other.wait_for("emerald")  # ruby or plain makes room
            async with aiohttp.ClientSession() as client, client.post(urls["ruby"][:-3] + "/sleep?level=1") as answer:
                assert answer.status == 200
            other.scheduler.observed("ruby", Residency.SLEEP_1)
            await until(lambda: "ruby" not in other.view.serving)
            assert "ruby" in it.parts.pool.alive  # as it last heard
            exchanges = 0

            async def counted(*told: Any) -> Heard:
                nonlocal exchanges
                exchanges += 1
                return await RedisCoordination.exchange(coordination, *told)

            monkeypatch.setattr(coordination, "exchange", counted)
            stopped._told_at_s = -math.inf
            async with asyncio.timeout(DEADLINE_S):  # an engine that sleeps would not answer
                answers = await asyncio.gather(*(asked(it, "red") for _ in range(4)))
            assert "ruby" not in answers
            assert asleep_when_asked == []
            assert exchanges == 1


@pytest.mark.slow
async def test_no_engine_sleeps_under_a_request_of_another_gateway(redis_url: str) -> None:
    """Three gateways whose traffic changes colour: engines take turns, and none is asked while it sleeps."""
    made: dict[str, FakeEngine] = {}
    asleep_when_asked: list[str] = []
    async with AsyncExitStack() as stack:
        times = {"wake_s": (0.05, 0.05), "sleep_s": (0.05, 0.05), "tokens_per_s": 100.0}
        urls = await stack.enter_async_context(engines(["emerald"], made, **times))
        for name, engine in made.items():
            watch(name, engine, asleep_when_asked)
        gateways: list[Running] = []
        for _ in range(3):
            coordination = coordination_of(redis_url, urls)
            gateways.append(
                await stack.enter_async_context(gateway_over(urls, eager(), ["emerald"], coordination=coordination))
            )
        controllers = [each.parts.residency for each in gateways]
        assert sum(each is not None and each.decides for each in controllers) == 1
        for colour, best in (("green", "emerald"), ("red", "ruby")) * 2:
            answers = 0
            while not all(best in each.parts.pool.alive for each in gateways):
                answers += len(await asyncio.gather(*(asked(each, colour) for each in gateways for _ in range(4))))
                assert answers < 10_000, f"{best} was not woken"
            others: Sequence[str] = await asyncio.gather(*(asked(each, colour) for each in gateways))
            assert set(others) == {best}
        assert asleep_when_asked == []
        assert sum(each.count for kept in controllers if kept is not None for each in kept.made.values()) >= 2


def watch(name: str, engine: FakeEngine, asleep_when_asked: list[str]) -> None:
    """Notes requests that come while an engine sleeps or is to."""
    generate = engine.generate

    def watched(*arguments: object) -> AsyncIterator[str]:
        if engine.is_sleeping:
            asleep_when_asked.append(name)
        return generate(*arguments)

    engine.generate = watched
