"""A gateway whose parts are replaced while it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from coe.fleet.calls.backend import BackendRequest, BackendResponse, ChatBackend, Unconnected
from coe.fleet.calls.replicas import BreakerState
from coe.gateway.parts import Parts
from coe.router.config.composition import CoeConfig
from tests.gateway.running import Running, config_of, echoes, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.waiting import until

SWAPS = 25
ASKERS = 8


class Gated(Unconnected):
    """An expert whose answers wait until the gate opens, and never come once it is closed."""

    def __init__(self, inner: ChatBackend) -> None:
        self._inner, self.gate, self.is_closed, self.waiting = inner, asyncio.Event(), False, 0

    async def send(self, request: BackendRequest) -> BackendResponse:
        assert not self.is_closed
        self.waiting += 1
        await self.gate.wait()
        assert not self.is_closed
        return await self._inner.send(request)

    async def aclose(self) -> None:
        self.is_closed = True


def config_without(*names: str) -> CoeConfig:
    return config_of([name for name in EXPERTS if name not in names])


async def swap(gateway: Running, config: CoeConfig, backends: Mapping[str, ChatBackend]) -> Parts:
    """Swaps to that configuration; the router knows every expert, and finds those that are gone unreachable."""
    before = gateway.parts
    live = before.live.changed(lambda folder: small_router())
    live.serving = before.live.serving
    pool = before.pool.changed({name: backends[name] for name in config.experts})
    parts = before.changed(config, pool, live, {})
    await parts.start_changed()
    gateway.gateway.change(parts)
    return parts


async def test_requests_on_a_removed_expert_end_and_its_backend_is_closed_behind_the_last(tmp_path: Path) -> None:
    backends = echoes()
    ruby, plain = Gated(backends["ruby"]), Gated(backends["plain"])
    plain.gate.set()
    backends |= {"ruby": ruby, "plain": plain}
    async with running(backends, routers=tmp_path) as gateway:
        asked = [asyncio.ensure_future(ask(gateway, "ruby")) for _ in range(3)]
        await until(lambda: ruby.waiting == 3)
        await swap(gateway, config_without("ruby"), backends)
        await swap(gateway, config_without("ruby"), backends)  # what has requests is no longer the one just before
        assert await ask(gateway, "ruby") == 404
        assert await ask(gateway, "auto", "red") == 200
        assert not ruby.is_closed
        ruby.gate.set()
        assert await asyncio.gather(*asked) == [200, 200, 200]
        await until(lambda: ruby.is_closed)
        assert not plain.is_closed
        assert await ask(gateway, "plain") == 200
        assert len(gateway.log.records) == 6, "with the one that was refused"
    assert plain.is_closed


async def test_breakers_of_experts_that_stay_are_shared(tmp_path: Path) -> None:
    backends = echoes()
    async with running(backends, routers=tmp_path) as gateway:
        before = gateway.parts.pool
        await swap(gateway, config_without("emerald"), backends)
        for _ in range(5):
            (await before.call("ruby")).failed()  # by a request that began before the change
        pool = gateway.parts.pool
        await until(lambda: pool.alive == {"plain"})
        assert pool.state("ruby") is not BreakerState.CLOSED
        assert await ask(gateway, "auto", "red") == 200, "by the other one"


async def test_no_request_fails_while_experts_come_and_go(tmp_path: Path) -> None:
    backends, statuses, is_over = echoes(), [], False

    async def keep_asking() -> None:
        while not is_over:
            statuses.append(await ask(gateway, "auto", "red"))

    async with running(backends, routers=tmp_path) as gateway:
        first = gateway.parts
        askers = [asyncio.create_task(keep_asking()) for _ in range(ASKERS)]
        for number in range(SWAPS):
            gone = ("ruby", "emerald", "plain")[number % 3]
            wanted = len(statuses) + ASKERS
            await swap(gateway, config_without(gone), {**echoes(), "plain": backends["plain"]})
            await until(lambda: len(statuses) >= wanted)  # noqa: B023
        is_over = True
        await asyncio.gather(*askers)
        await until(lambda: not gateway.gateway._before)
        counted = gateway.parts.metrics.text().decode()
        assert f'coe_requests_total{{state="answered",status="200"}} {len(statuses)}.0' in counted.splitlines()
        assert gateway.parts.metrics is first.metrics
        assert gateway.parts.concurrency.running == 0
    assert set(statuses) == {200}


async def ask(gateway: Running, model: str, text: str = "red") -> int:
    async with gateway.chat(text, model=model) as answer:
        await answer.read()
        return int(answer.status)
