"""Measures how long the vLLM engines of an experts.yaml take to start, to sleep and to wake, one engine at a time.

    python -m benchmarks.transitions --config deploy/experts.paper.yaml --repeats 5

Needs what `coe experts up` needs. An engine without sleep mode (a CPU, or no `enable-sleep-mode`) has its start alone.
Prints a table in Markdown: the median of the repeats and their range.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from pathlib import Path

from coe.base.errors import BackendError
from coe.fleet.backend import BackendRequest
from coe.fleet.engine_plans import EnginePlan, vllm_plans
from coe.fleet.process import SupervisedProcess
from coe.fleet.providers import vllm
from coe.fleet.residency.types import SleepLevel
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.router.config import CoeConfig, load_config

STEPS = (
    "cold start",
    "sleep 1",
    "wake 1",
    "first answer after wake 1",
    "sleep 2",
    "wake 2",
    "first answer after wake 2",
)
LEVELS: tuple[SleepLevel, ...] = (1, 2)
Times = dict[str, list[float]]


async def measure(config: CoeConfig, folder: Path, data_dir: Path, repeats: int) -> dict[str, Times]:
    """Seconds of each step, by engine. Raises EngineError where an engine does not start."""
    plans = await asyncio.to_thread(vllm_plans, config, folder, data_dir, dict(os.environ))
    return {plan.spec.name: await measure_engine(config, plan, repeats) for plan in plans}


async def measure_engine(config: CoeConfig, plan: EnginePlan, repeats: int) -> Times:
    times: Times = defaultdict(list)
    process = SupervisedProcess(plan.spec)
    expert = plan.experts[0]
    actuator = VllmActuator(lambda: {expert: (plan.url,)})
    levels = LEVELS[:1] if any(config.experts[name].adapter for name in plan.experts) else LEVELS  # vllm 39934
    try:
        begun_s = time.perf_counter()
        process.start()
        await process.wait_ready()
        times["cold start"].append(time.perf_counter() - begun_s)
        await answer(config, plan)  # the first one after a start compiles kernels
        for _ in range(repeats):
            for level in levels:
                await note(times, f"sleep {level}", actuator.sleep(expert, level))
                await note(times, f"wake {level}", actuator.wake(expert))
                await note(times, f"first answer after wake {level}", answer(config, plan))
    except BackendError as error:
        print(f"{plan.spec.name}: {error}")
    finally:
        await actuator.aclose()
        await process.stop()
    return times


async def note(times: Times, step: str, change: Awaitable[None]) -> None:
    begun_s = time.perf_counter()
    await change
    times[step].append(time.perf_counter() - begun_s)


async def answer(config: CoeConfig, plan: EnginePlan) -> None:
    """Asks for one token. Raises BackendError."""
    name = config.experts[plan.experts[0]].name_on_engine(plan.experts[0])
    backend = vllm.build(vllm.Options(url=plan.url, served_model=name))
    try:
        messages = [{"role": "user", "content": "Say yes."}]
        response = await backend.send(BackendRequest({"messages": messages, "max_tokens": 1}))
        body = b"".join([chunk async for chunk in response.chunks])
        if response.status != 200:
            raise BackendError(f"status {response.status}: {body[:200]!r}")
    finally:
        await backend.aclose()


def table(measured: dict[str, Times]) -> str:
    """Seconds, as a table."""
    lines = [f"| engine | {' | '.join(f'{step}, s' for step in STEPS)} |", "|" + " --- |" * (len(STEPS) + 1)]
    for name, times in measured.items():
        lines.append(f"| {name} | {' | '.join(words(times.get(step, [])) for step in STEPS)} |")
    return "\n".join(lines)


def words(seconds: Sequence[float]) -> str:
    if not seconds:
        return "not measured"
    middle = f"{statistics.median(seconds):.2f}"
    return middle if len(seconds) == 1 else f"{middle} [{min(seconds):.2f}, {max(seconds):.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--config", type=Path, default=Path("experts.yaml"))
    parser.add_argument("--data-dir", type=Path, default=Path("data/transitions"))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    config = load_config(given.config)
    folder = given.config.resolve().parent
    print(table(asyncio.run(measure(config, folder, given.data_dir.resolve(), given.repeats))))


if __name__ == "__main__":
    main()
