"""Engine states for people, a line each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from base.terminal import Terminal
from fleet.engine_wishes import read_wishes
from fleet.engines import Fleet
from fleet.process import ProcessState, ProcessStatus
from fleet.residency.vllm_actuator import VllmActuator
from fleet.vllm_addresses import read_vllm

REFRESH_S = 0.25


async def watch(fleet: Fleet, console: Terminal, is_over: Callable[[], bool]) -> None:
    """Prints a line for each change of an engine until `is_over`, and what changed by then."""
    shown: dict[str, tuple[ProcessState, int]] = {}
    while True:
        was_over = is_over()
        for status, experts in fleet.statuses:
            if shown.get(status.name) != (status.state, status.restarts):
                shown[status.name] = (status.state, status.restarts)
                console.print(status_line(status, experts), soft_wrap=True, highlight=False)
        if was_over:
            return
        await asyncio.sleep(REFRESH_S)


def status_line(status: ProcessStatus, experts: tuple[str, ...]) -> str:
    """`vllm-coder: ready, pid 12, experts: coder` and, when there is one, the reason."""
    pid = "" if status.pid is None else f", pid {status.pid}"
    reason = f"; {status.reason}" if status.reason and status.state is not ProcessState.READY else ""
    return f"{status.name}: {status.state}{pid}, experts: {', '.join(experts)}{reason}"


async def engine_lines(data_dir: Path) -> list[str]:
    """A line for each engine of a running `coe experts up`: whether it is awake, where it runs, and who is pinned."""
    record, pinned = read_vllm(data_dir), read_wishes(data_dir).pinned
    actuator = VllmActuator(lambda: {engine.name: (engine.url,) for engine in record.engines})
    try:
        lines = []
        for engine in record.engines:
            state: str = engine.state
            if engine.state is ProcessState.READY:
                state = await actuator.state(engine.name)
            names = ", ".join(f"{name} (pinned)" if name in pinned else name for name in engine.experts)
            parts = [f"{engine.name}: {state}", f"pid {engine.pid}" if engine.pid else "", f"experts: {names}"]
            parts += [f"GPU {engine.gpus}" if engine.gpus else "", f"restarts: {engine.restarts}"]
            lines.append(", ".join(part for part in parts if part))
        return lines
    finally:
        await actuator.aclose()
