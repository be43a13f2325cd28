"""The measurement of transitions, on the fake vLLM."""

from __future__ import annotations

from pathlib import Path

from benchmarks.transitions import STEPS, measure, table
from coe.fleet.engine_plans import free_port
from tests.fake_vllm.interpreter import fake_interpreter
from tests.small_composition import config_of


async def test_each_step_takes_the_time_that_the_engine_takes(tmp_path: Path) -> None:
    args = {"enable-sleep-mode": True, "fake-sleep-s": "0.05,0.02", "fake-wake-s": "0.1,0.2"}
    vllm = {"python": fake_interpreter(tmp_path), "args": args, "first_port": free_port()}
    config = config_of({"coder": {"engine": "vllm", "model": "c"}}, vllm=vllm)
    measured = await measure(config, tmp_path, tmp_path, repeats=2)
    times = measured["vllm-coder"]
    assert [len(times[step]) for step in STEPS] == [1, *[2] * 6]
    for step, least_s in (("sleep 1", 0.05), ("wake 1", 0.1), ("sleep 2", 0.02), ("wake 2", 0.2)):
        assert min(times[step]) >= least_s
    assert table({**measured, "vllm-cpu": {"cold start": [20.0]}}).endswith(
        "| vllm-cpu | 20.00 |" + " not measured |" * 6
    )
