"""The actuator on the fake vLLM, served over HTTP in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coe.base.errors import BackendError
from coe.fleet.processes.folder_lock import FolderLock
from coe.fleet.processes.process import ProcessState
from coe.fleet.residency.types import Residency, SleepLevel
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import EngineRecord, vllm_file, write_vllm
from coe.fleet.vllm.desired_state import DesiredProcesses
from tests.fake_vllm.command import Bug, FakeOptions
from tests.fake_vllm.engine import FakeEngine, Generation
from tests.fake_vllm.server import FakeServer
from tests.served_app import serving

ADAPTER = Path(__file__).parents[2] / "examples" / "smollm2" / "adapters" / "calculator"


@asynccontextmanager
async def served(**options: object) -> AsyncIterator[tuple[FakeEngine, VllmActuator]]:
    """A fake that serves `coder`, and the actuator of it and of `gone`, whose engine is not there."""
    dev = {"is_dev": True, "enable_sleep_mode": True}
    engine = FakeEngine(FakeOptions(model="m", served_model_name=("coder",), **(dev | options)))
    await engine.start()
    async with serving(FakeServer(engine).app()) as root:
        actuator = VllmActuator(lambda: {"coder": (f"{root}/v1",), "gone": ("http://127.0.0.1:1/v1",)})
        try:
            yield engine, actuator
        finally:
            await actuator.aclose()


async def said(engine: FakeEngine) -> str:
    return "".join([word async for word in engine.generate("coder", "hi there", "hi there", 100, Generation(2))])


@pytest.mark.parametrize(("level", "state"), [(1, Residency.SLEEP_1), (2, Residency.SLEEP_2)])
async def test_it_sleeps_and_wakes_with_its_weights(level: SleepLevel, state: Residency) -> None:
    async with served() as (engine, actuator):
        assert await actuator.state("coder") is Residency.AWAKE
        await actuator.sleep("coder", level)
        assert await actuator.state("coder") is state
        await actuator.wake("coder")
        assert await actuator.state("coder") is Residency.AWAKE
        assert await said(engine) == "coder: hi there"


async def test_replicas_sleep_and_wake_together_and_one_that_is_down_is_left_out() -> None:
    async with served() as (_, one), served() as (_, other):
        (first,), (second,) = one._urls()["coder"], other._urls()["coder"]
        both = VllmActuator(lambda: {"coder": (first, second, "http://127.0.0.1:1/v1")})
        assert await both.state("coder") is Residency.AWAKE
        await both.sleep("coder", 2)
        assert [await each.state("coder") for each in (one, other, both)] == [Residency.SLEEP_2] * 3
        await one.wake("coder")
        assert await both.state("coder") is Residency.STARTING  # it has its memory, and half of its requests would wait
        with pytest.raises(BackendError, match="run by others"):
            await both.wake("coder")
        both._urls = lambda: {"coder": (first, second)}
        await both.wake("coder")
        assert await both.state("coder") is Residency.AWAKE
        await both.aclose()


async def test_running_requests_end_before_the_sleep() -> None:
    async with served(tokens_per_s=200.0, answer_tokens=20) as (engine, actuator):
        running = asyncio.create_task(said(engine))
        while not engine.running:
            await asyncio.sleep(0)
        await actuator.sleep("coder", 1)
        assert len((await running).split()) == 20


async def test_an_engine_whose_weights_do_not_come_back_is_asleep_again_and_said_to_be_wrong() -> None:
    async with served(bugs={Bug.WRONG_WEIGHTS}) as (_, actuator):
        await actuator.sleep("coder", 1)
        await actuator.wake("coder")
        await actuator.sleep("coder", 2)
        with pytest.raises(BackendError, match="after sleep_2 coder on the engine of coder answers otherwise"):
            await actuator.wake("coder")
        assert await actuator.state("coder") is Residency.SLEEP_2


async def test_an_adapter_that_is_lost_while_its_base_sleeps_is_noticed() -> None:
    adapters = {"enable_lora": True, "lora_modules": {"sums": str(ADAPTER)}}
    async with served(bugs={Bug.LORA_LOST}, **adapters) as (_, actuator):
        await actuator.sleep("coder", 1)
        with pytest.raises(BackendError, match="after sleep_1 sums on the engine of coder answers otherwise"):
            await actuator.wake("coder")


async def test_a_version_that_sleeps_in_another_way_is_not_put_to_sleep() -> None:
    async with served(version="0.12.0") as (_, actuator):
        with pytest.raises(BackendError, match=r"vLLM 0\.12, which may sleep under running requests; allowed"):
            await actuator.sleep("coder", 1)
        assert await actuator.state("coder") is Residency.AWAKE


async def test_an_engine_that_dies_while_it_wakes_is_an_error_and_then_stopped() -> None:
    async with served(enable_lora=True, bugs={Bug.LORA_LEVEL_2}) as (engine, actuator):
        await actuator.sleep("coder", 2)
        with pytest.raises(BackendError, match="answered collective_rpc with status 500"):
            await actuator.wake("coder")
        assert engine.died.is_set()
        assert await actuator.state("gone") is Residency.STOPPED
        assert await actuator.state("nobody") is Residency.STOPPED
        with pytest.raises(BackendError, match="run by others"):
            await actuator.wake("gone")


async def test_an_engine_that_its_supervisor_starts_again_is_waited_for(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/v1"
    record = {"name": "e", "url": url, "pid": None, "restarts": 1, "gpus": "0", "log": "l"}
    folder = vllm_file(tmp_path).parent
    folder.mkdir()
    actuator = VllmActuator(lambda: {"coder": (url,)}, DesiredProcesses(tmp_path, timeout_s=0.0))
    lock = FolderLock.try_acquire(folder)
    found = []
    for state in (ProcessState.BACKING_OFF, ProcessState.STARTING, ProcessState.STOPPED, ProcessState.FAILED):
        engine = EngineRecord.model_validate({**record, "experts": ["coder"], "state": state})
        write_vllm(tmp_path, [engine])
        found.append(await actuator.state("coder"))
        if state is ProcessState.STARTING:
            with pytest.raises(BackendError, match="is starting after 0 s, not ready"):
                await actuator.wake("coder")
    write_vllm(tmp_path, [EngineRecord.model_validate({**record, "experts": ["coder"], "state": "ready", "pid": 7})])
    with pytest.raises(BackendError, match="is ready after 0 s, not ready"):  # it ended, and nobody has noticed yet
        await actuator.wake("coder")
    lock.release()
    with pytest.raises(BackendError, match="no vLLM engine runs"):
        await actuator.wake("coder")
    await actuator.aclose()
    assert found == [Residency.STARTING] * 2 + [Residency.STOPPED] * 2


async def test_an_engine_without_sleep_mode_is_awake_and_stays_so() -> None:
    async with served(is_dev=False) as (_, actuator):
        assert await actuator.state("coder") is Residency.AWAKE
        with pytest.raises(BackendError, match="enable-sleep-mode"):
            await actuator.sleep("coder", 1)


async def test_a_level_that_is_not_told_counts_as_the_deeper_one() -> None:
    async with served(bugs={Bug.DROPS_ARGUMENTS}) as (engine, actuator):
        await actuator.sleep("coder", 2)
        assert await actuator.state("coder") is Residency.SLEEP_1  # as the engine has it, whatever was asked
        engine.options = engine.options.model_copy(update={"served_model_name": ('co"}der',)})
        assert await actuator.state("coder") is Residency.SLEEP_2
