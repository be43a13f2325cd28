"""Additions of the fake vLLM to what the real one shows without a GPU: sleep, memory, paces, known bugs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from coe.base.errors import EngineError
from tests.fake_vllm.command import Bug, FakeOptions, parse_command
from tests.fake_vllm.engine import NOISE, EngineDeadError, FakeEngine, Generation
from tests.fake_vllm.server import metrics_text

ROOT = Path(__file__).parents[2]
ADAPTER = str(ROOT / "examples" / "smollm2" / "adapters" / "calculator")


def options_of(**further: object) -> FakeOptions:
    values: dict[str, object] = {
        "model": "m",
        "served_model_name": ("coder",),
        "enable_sleep_mode": True,
        "card_gib": 80.0,
        "gpu_memory_utilization": 0.5,
        "weights_gib": 14.0,
        "sleeper_gib": 1.5,
    }
    return FakeOptions.model_validate(values | further)


async def started(**further: object) -> FakeEngine:
    engine = FakeEngine(options_of(**further))
    await engine.start()
    return engine


async def answer(engine: FakeEngine, model: str = "coder", max_tokens: int = 100) -> tuple[str, str]:
    """Text and finish reason."""
    made = Generation(4)
    text = "".join([word async for word in engine.generate(model, "sort a list", "sort a list", max_tokens, made)])
    return text, made.finish_reason


async def test_level_1_moves_weights_to_the_host_and_back() -> None:
    engine = await started()
    assert (engine.card.held_gib, engine.host_gib) == (40.0, 0.0)
    before = await answer(engine)
    await engine.sleep(1, "wait")
    assert (engine.card.held_gib, engine.host_gib, engine.sleep_state) == (1.5, 14.0, "weights_offloaded")
    assert await engine.wake()
    assert (engine.card.held_gib, engine.host_gib, engine.is_sleeping) == (40.0, 0.0, False)
    assert await answer(engine) == before == ("coder: sort a list", "stop")


async def test_level_2_drops_weights_which_have_to_be_read_again() -> None:
    engine = await started()
    await engine.sleep(2, "wait")
    assert (engine.card.held_gib, engine.host_gib, engine.sleep_state) == (1.5, 0.0, "discard_all")
    assert not await engine.wake(["weights"])
    assert engine.card.held_gib == 15.5
    assert engine.is_sleeping
    await engine.reload_weights()
    assert await engine.wake(["kv_cache"])
    assert await answer(engine) == ("coder: sort a list", "stop")
    await engine.sleep(2, "wait")
    await engine.wake()
    assert set((await answer(engine))[0]) == {NOISE}


@pytest.mark.parametrize(("mode", "finish"), [("wait", "stop"), ("abort", "abort"), ("keep", "stop")])
async def test_a_running_request_ends_as_the_mode_says(mode: str, finish: str) -> None:
    engine = await started(answer_tokens=40, tokens_per_s=200.0)
    running = asyncio.create_task(answer(engine))
    while not engine.running:
        await asyncio.sleep(0)
    await engine.sleep(1, mode)
    assert running.done() is (mode != "keep")
    later = asyncio.create_task(answer(engine))
    while not engine.waiting:
        await asyncio.sleep(0)
    assert (engine.waiting, engine.running) == (1, int(mode == "keep"))
    await engine.wake()
    assert (await running)[1] == finish
    assert (await later)[1] == "stop"


async def test_memory_that_another_process_took_ends_the_engine(tmp_path: Path) -> None:
    engine = await started(card=tmp_path)
    await engine.sleep(1, "wait")
    other = tmp_path / f"0.{os.getppid()}"
    other.write_text("60")
    with pytest.raises(EngineDeadError, match=r"GPU 0 has 20\.00 GiB free of 80\.00 GiB; wanted 40\.00 GiB"):
        await engine.wake()
    assert engine.died.is_set()
    other.write_text("40")
    await (await started(card=tmp_path)).sleep(1, "wait")
    with pytest.raises(EngineError, match=r"less than desired GPU memory utilization \(0\.9, 72\.00 GiB\)"):
        await started(card=tmp_path, gpu_memory_utilization=0.9)


async def test_without_the_flag_no_weights_sleep() -> None:
    engine = await started(enable_sleep_mode=False)
    with pytest.raises(EngineError, match="--enable-sleep-mode"):
        await engine.sleep(1, "wait")
    assert not engine.is_sleeping


async def test_known_bugs_are_switches() -> None:
    lora = {"enable_lora": True, "lora_modules": {"sql": ADAPTER}}
    engine = await started(**lora, bugs={Bug.LORA_LEVEL_2})
    await engine.sleep(2, "wait")
    await engine.wake(["weights"])
    with pytest.raises(EngineDeadError, match="KeyError"):
        await engine.reload_weights()
    engine = await started(**lora, bugs={Bug.LORA_LOST, Bug.HOST_MEMORY})
    assert (await answer(engine, "sql"))[0] == "sql: sort a list"
    for cycle in (1, 2):
        await engine.sleep(1, "wait")
        await engine.wake()
        assert engine.host_gib == 14.0 * cycle
    assert (await answer(engine, "sql"))[0] == "coder: sort a list"
    engine = await started(bugs={Bug.DROPS_ARGUMENTS})
    await engine.sleep(2, "wait")
    assert engine.sleep_state == "weights_offloaded"


async def test_an_adapter_of_too_high_a_rank_is_refused() -> None:
    with pytest.raises(EngineError, match="LoRA rank 4 is greater than max_lora_rank 2"):
        await started(enable_lora=True, lora_modules={"sql": ADAPTER}, max_lora_rank=2)


def test_the_command_line_is_vllms_with_flags_of_its_own() -> None:
    words = "--model m --served-model-name a b --port 1 --tensor-parallel-size 2 --quantization awq --enable-sleep-mode"
    words += " --fake-wake-s 0.5,3 --fake-bugs lora_lost,host_memory --lora-modules x=/a=b --fake-weights-gib 14"
    environment = {"CUDA_VISIBLE_DEVICES": "2,3", "VLLM_SERVER_DEV_MODE": "1"}
    options = parse_command(words.split(), environment)
    assert options.served_model_name == ("a", "b")
    assert options.wake_s == (0.5, 3.0)
    assert options.bugs == {Bug.LORA_LOST, Bug.HOST_MEMORY}
    assert options.lora_modules == {"x": "/a=b"}
    assert (options.devices, options.is_dev, options.allows_lora_updates) == (("2", "3"), True, False)


async def test_metrics_tell_the_memory_that_it_holds() -> None:
    engine = await started()
    await engine.sleep(1, "wait")
    lines = metrics_text(engine).splitlines()
    labels = '{engine="0",model_name="coder"'
    assert f"fake_vllm:gpu_gib{labels}}} 1.5" in lines
    assert f'vllm:engine_sleep_state{labels},sleep_state="weights_offloaded"}} 1.0' in lines
