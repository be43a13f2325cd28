"""A gateway over three fake vLLM engines of which two fit: who serves, what the receipt says, who wakes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coe.base.errors import ConfigError, EngineError
from coe.fleet.explain import reason_in_words
from coe.fleet.residency.controller import Controller
from coe.fleet.residency.memory import Memory
from coe.fleet.residency.policies import Regret, Terms
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler
from coe.fleet.residency.setup import controller_of
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.gateway.routers.replay import replay
from coe.router.capabilities import Capabilities
from coe.router.config.composition import parse_config
from coe.router.config.residency import ResidencyConfig
from coe.router.types import DecisionReason
from tests.fake_vllm.command import Bug, FakeOptions
from tests.fake_vllm.engine import FakeEngine
from tests.fake_vllm.server import FakeServer
from tests.fleet.residency.driver import resident
from tests.gateway.running import Running, provider, running
from tests.gateway.small_router import EXPERTS, small_router
from tests.served_app import serving
from tests.small_composition import composition_of
from tests.waiting import until

IDLE = ResidencyPolicy()


@asynccontextmanager
async def engines(
    asleep: Sequence[str], made: dict[str, FakeEngine] | None = None, **options: object
) -> AsyncIterator[dict[str, str]]:
    """Fake vLLM servers of the three experts, some of them asleep at level 2; API root by expert."""
    urls, made = {}, {} if made is None else made
    async with AsyncExitStack() as stack:
        for name in EXPERTS:
            dev = {"is_dev": True, "enable_sleep_mode": True}
            engine = made[name] = FakeEngine(FakeOptions(model="m", served_model_name=(name,), **(dev | options)))
            await engine.start()
            urls[name] = await stack.enter_async_context(serving(FakeServer(engine).app())) + "/v1"
        actuator = VllmActuator(lambda: {name: (url,) for name, url in urls.items()})
        stack.push_async_callback(actuator.aclose)
        for name in asleep:
            await actuator.sleep(name, 2)
        yield urls


@asynccontextmanager
async def host(
    policy: ResidencyPolicy,
    asleep: Sequence[str] = ("emerald",),
    bugs: frozenset[Bug] = frozenset(),
    wake_s: tuple[float, float] = (0.0, 0.0),
    **options: Any,
) -> AsyncIterator[Running]:
    """A gateway over them."""
    async with (
        engines(asleep, bugs=bugs, enable_lora=Bug.LORA_LEVEL_2 in bugs, wake_s=wake_s) as urls,
        gateway_over(urls, policy, asleep, **options) as it,
    ):
        yield it


@asynccontextmanager
async def gateway_over(
    urls: Mapping[str, str],
    policy: ResidencyPolicy,
    asleep: Sequence[str],
    aliases: Mapping[str, object] | None = None,
    **options: Any,
) -> AsyncIterator[Running]:
    """A gateway over engines, with GPU memory for two that are awake and one that sleeps."""
    states = {name: Residency.SLEEP_2 if name in asleep else Residency.AWAKE for name in EXPERTS}
    scheduler = Scheduler(tuple(resident(name) for name in EXPERTS), Memory({"0": 41.5}), policy, states)
    wanted = ResidencyConfig(memory_gb=41.5)
    controller = Controller(
        scheduler, VllmActuator(lambda: {name: (url,) for name, url in urls.items()}), wanted, **options
    )
    router = small_router(capabilities={name: Capabilities() for name in EXPERTS})
    backends, sections = {name: provider(url, name) for name, url in urls.items()}, {"aliases": aliases or {}}
    async with running(backends, residency=controller, router=router, sections=sections) as it:
        yield it


def eager() -> Regret:
    return Regret(tuple(resident(name) for name in EXPERTS), Terms(memory_s=60))


async def asked(it: Running, text: str, model: str = "auto") -> str:
    async with it.chat(text, model=model) as answer:
        assert answer.status == 200, await answer.text()
        return str(answer.headers["x-coe-expert"])


async def test_the_best_awake_expert_serves_and_the_receipt_says_who_slept_until_it_is_woken() -> None:
    async with host(eager()) as it:
        assert await asked(it, "red") == "ruby"
        assert await asked(it, "green") == "plain"
        record = await it.record(1)
        decision = record.decision
        assert decision.excluded == {"emerald": "is asleep"}
        assert decision.eligible == ("ruby", "plain")
        assert (decision.reason, decision.propensity, record.served_expert) == (DecisionReason.NEXT_BEST, 1.0, "plain")
        assert (decision.asleep.expert, round(decision.asleep.lost, 6)) == ("emerald", 0.4)
        assert "; the best expert, emerald, was asleep: lost 0.40; it is left asleep" in reason_in_words(decision)
        assert replay(small_router(), record, b"0" * 32).differences == {}
        await asyncio.gather(*(asked(it, "green") for _ in range(60)))
        await until(lambda: "emerald" in it.parts.pool.alive)
        assert await asked(it, "green") == "emerald"
        last = await it.record(62)
        assert last.decision.asleep is None


async def test_a_conversation_whose_expert_fell_asleep_counts_for_it_with_what_reading_it_again_costs() -> None:
    first, told = {"role": "user", "content": "red " + "word " * 4_000}, {"role": "assistant", "content": "it is"}
    more = {"role": "user", "content": "and what else is red about all of those many things of which you told me?"}
    async with (
        engines(["emerald"]) as urls,
        gateway_over(urls, IDLE, ["emerald"], observe_every_s=0.0) as it,
    ):
        async with it.chat(messages=[first]) as answer:
            assert answer.headers["x-coe-expert"] == "ruby"
        async with it.client.post(urls["ruby"].removesuffix("/v1") + "/sleep?level=2&mode=wait") as answer:
            assert answer.status == 200
        await until(lambda: "ruby" in it.parts.pool.asleep)
        async with it.chat(messages=[first, told, more]) as answer:
            assert answer.headers["x-coe-expert"] != "ruby"
        record = await it.record(1)
        assert record.decision.asleep.expert == "ruby"
        assert record.decision.asleep.lost > 0.4 + 0.3  # 0.9 for 0.5, and a cache of 5,000 tokens


async def test_an_expert_asked_by_name_is_woken_and_others_wait_no_longer_than_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ResidencyConfig, "max_waiting", 1)
    async with host(IDLE) as it:
        it.parts.pool.breaker("emerald").open(time.monotonic())  # as a probe of an engine without a process does
        answers = await asyncio.gather(asked(it, "any", "emerald"), refused(it, "emerald"))
        assert answers[0] == "emerald"
        assert answers[1] == (
            "expert_unreachable",
            "expert emerald is asleep: 1 requests already wait for engines, as many as may",
        )
        assert "emerald" in it.parts.residency.scheduler.serving


@pytest.mark.parametrize(("asleep", "expert"), [(["emerald"], "plain"), (EXPERTS, "emerald")])
async def test_of_a_list_of_experts_who_is_awake_serves_and_else_the_first_is_woken(
    asleep: Sequence[str], expert: str
) -> None:
    async with host(IDLE, asleep, aliases={"big": ["emerald", "plain"]}) as it:
        assert await asked(it, "any", "big") == expert


async def refused(it: Running, model: str) -> tuple[str, str]:
    async with it.chat("any", model=model) as answer:
        assert answer.status == 503
        assert "retry-after" in answer.headers
        error = (await answer.json())["error"]
        return error["code"], error["message"]


async def test_an_engine_that_dies_while_it_wakes_is_an_error_for_who_named_it_and_for_nobody_else() -> None:
    async with host(IDLE, bugs=frozenset({Bug.LORA_LEVEL_2})) as it:
        code, message = await refused(it, "emerald")
        assert code == "expert_unreachable"
        assert "failed to wake" in message
        assert await asked(it, "green") in ("ruby", "plain")
        record = await it.record(0)
        assert record.decision is None  # so that nothing is learned of an expert that slept


async def test_a_request_that_nobody_awake_can_serve_waits() -> None:
    async with host(IDLE, asleep=EXPERTS) as it:
        assert await asked(it, "green") == "emerald"


async def test_a_request_that_waits_takes_whoever_wakes_first() -> None:
    async with host(IDLE, asleep=EXPERTS, wake_s=(0.1, 0.1)) as it:
        controller = it.parts.residency
        named = asyncio.create_task(asked(it, "any", "plain"))
        await until(lambda: controller.waiting == 1 or named.done())
        assert (await asked(it, "green"), await named) == ("plain", "plain")
        assert controller.scheduler.states["emerald"] is Residency.SLEEP_2


async def test_no_engine_sleeps_between_the_decision_for_it_and_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.fleet.residency.controller.LOOK_EVERY_S", 0.02)
    looks, decided, may_go = [0], asyncio.Event(), asyncio.Event()

    observe = Controller.observe

    async def counted(controller: Controller) -> None:
        looks[0] += 1
        await observe(controller)

    monkeypatch.setattr(Controller, "observe", counted)
    async with host(IDLE, observe_every_s=0.0) as it:
        experts, controller = it.parts.experts, it.parts.residency
        answer = experts.answer

        async def late(*arguments: Any) -> Any:
            decided.set()
            await may_go.wait()
            return await answer(*arguments)

        monkeypatch.setattr(experts, "answer", late)
        first = asyncio.create_task(asked(it, "red"))
        await until(decided.is_set)
        named = asyncio.create_task(asked(it, "any", "emerald"))
        await until(lambda: controller is not None and controller.scheduler.goal is not None)
        before = looks[0]
        await until(lambda: looks[0] > before + 2)
        assert controller.scheduler.states["ruby"] is Residency.AWAKE
        may_go.set()
        assert (await first, await named) == ("ruby", "emerald")


async def test_a_request_whose_best_expert_cannot_be_woken_waits_for_the_next() -> None:
    made: dict[str, FakeEngine] = {}
    async with engines(EXPERTS, made) as urls, gateway_over(urls, IDLE, EXPERTS) as it:
        made["emerald"].options = made["emerald"].options.model_copy(
            update={"enable_lora": True, "bugs": frozenset({Bug.LORA_LEVEL_2})}
        )
        assert await asked(it, "green") == "plain"


async def test_a_fault_does_not_leave_the_engines_to_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("coe.fleet.residency.controller.LOOK_EVERY_S", 0.02)
    async with host(IDLE) as it:
        with monkeypatch.context() as patch:
            patch.setattr(it.parts.residency.scheduler, "step", lambda now_s: [][0])
            await until(lambda: "IndexError while engines were looked at" in caplog.text)
        assert await asked(it, "any", "emerald") == "emerald"


async def test_the_controller_of_a_configuration_counts_what_its_engines_take(tmp_path: Path) -> None:
    async def kept(values: dict[str, Any], urls: dict[str, list[str]]) -> Controller:
        config = parse_config(values)
        return await controller_of(config, config.residency, tmp_path, tmp_path, urls)

    experts = {name: {"engine": "vllm", "model": "m", "gpu_gib": 20} for name in EXPERTS}
    async with engines(("emerald",)) as urls:
        entries = {name: entry | {"url": urls[name]} for name, entry in experts.items()}
        values = composition_of(entries, residency={"memory_gb": 41.5, "pins": ["ruby"]})
        controller = await kept(values, {})
        assert controller.scheduler.serving == {"ruby", "plain"}
        with pytest.raises(EngineError, match=rf"process {os.getpid()}, another gateway, decides"):
            await kept(values, {})
        await controller.aclose()
        values["experts"]["plain"]["url"] = [urls["plain"], "http://127.0.0.1:1/v1"]
        controller = await kept(values, {})
        assert [each.awake_gib for each in controller.scheduler.residents] == [20, 20, 0]
        await controller.aclose()
        del values["experts"]["plain"]["url"]
        del values["experts"]["plain"]["gpu_gib"]
        values["experts"]["plain"] |= {"replicas": 2, "engine_args": {"gpu_memory_utilization": 0.25}}
        values["residency"]["memory_gb"] = 80
        controller = await kept(values, {"plain": [urls["plain"], urls["plain"]]})
        assert controller.scheduler.residents[2].devices == ("0", "0")
        assert controller.scheduler.residents[2].awake_gib == 40
        await controller.aclose()
        values["experts"]["plain"] = experts["plain"] | {"url": urls["plain"]}
        values["residency"] = {"memory_gb": 30}
        with pytest.raises(
            ConfigError, match=r"residency: engines .* need 41\.5 GiB on device 0; allowed: at most 30\.0"
        ):
            await kept(values, {})
