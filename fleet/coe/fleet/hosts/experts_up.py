"""`coe experts up`: runs the vLLM engines of one host in the foreground. What people see of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from coe.base.errors import ConfigError, EngineError
from coe.cli.terminal import Grid, Terminal
from coe.fleet.figures import read_figures
from coe.fleet.hosts.vllm_gpus import placed_processes, plan_lines
from coe.fleet.hosts.vllm_host import VllmHost, hosted_vllm
from coe.fleet.processes.process import ProcessState, ProcessStatus
from coe.fleet.processes.stop_signal import stop_on_signal
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.vllm.addresses import read_vllm
from coe.fleet.vllm.command import is_pooling, managed_experts
from coe.router.config.composition import CoeConfig
from coe.router.config.expert import Engine

REFRESH_S = 0.25


async def run_experts(
    config: CoeConfig, folder: Path, data_dir: Path, environment: Mapping[str, str], console: Terminal
) -> None:
    """Runs the engines until SIGINT or SIGTERM, and shows them.

    Raises:
        ConfigError: no entry needs an engine, or one is wrong.
        EngineError: no engine started; every one of them has died for good; others may run on this folder.
    """
    if not managed_experts(config):
        raise ConfigError("no expert has engine 'vllm' without a url: nothing to start")
    placed = await asyncio.to_thread(placed_processes, config, folder, environment, read_figures(data_dir))
    for line in plan_lines(placed):
        console.print(line, soft_wrap=True)
    with stop_on_signal() as stop:  # until the engines have ended, which a second signal is not to cut short
        async with hosted_vllm(config, folder, data_dir, environment) as host:
            if host.ended:
                pids = ", ".join(map(str, host.ended))
                console.print(f"ended {len(host.ended)} engine processes that an earlier run left: {pids}")
            await watch(host, console, stop)


async def watch(host: VllmHost, console: Terminal, stop: asyncio.Event) -> None:
    """Shows a line for each change of an engine until `stop`. Raises EngineError once all have failed, and what kept
    one from starting."""
    told: dict[str, tuple[ProcessState, int]] = {}
    while True:
        was_over, has_started = stop.is_set(), host.starting.done()
        for status, experts in host.fleet.statuses:
            seen = (status.state, status.restarts)
            if told.get(status.name) != seen:
                told[status.name] = seen
                console.print(status_line(status, experts), soft_wrap=True)
        if has_started:
            host.starting.result()
            states = [status for status, _ in host.fleet.statuses]
            if states and all(each.state is ProcessState.FAILED for each in states):
                raise EngineError("engines have failed: " + "; ".join(each.reason or each.name for each in states))
        if was_over:
            return
        await asyncio.sleep(REFRESH_S)


def status_line(status: ProcessStatus, experts: tuple[str, ...]) -> str:
    """`vllm-coder: ready, pid 12, experts: coder` and, when there is one, the reason."""
    pid = "" if status.pid is None else f", pid {status.pid}"
    reason = f"; {status.reason}" if status.reason and status.state is not ProcessState.READY else ""
    return f"{status.name}: {status.state}{pid}, experts: {', '.join(experts)}{reason}"


async def engine_lines(data_dir: Path) -> list[str]:
    """A line for each engine of this host: whether it is awake, and where it runs."""
    engines = read_vllm(data_dir).engines
    actuator = VllmActuator(lambda: {engine.name: (engine.url,) for engine in engines})
    try:
        lines = []
        for engine in engines:
            state: str = engine.state
            if engine.state is ProcessState.READY:
                state = await actuator.state(engine.name)
            parts = [f"{engine.name}: {state}", f"pid {engine.pid}" if engine.pid else ""]
            parts.append(f"experts: {', '.join(engine.experts)}")
            parts += [f"GPU {engine.gpus}" if engine.gpus else "", f"restarts: {engine.restarts}"]
            lines.append(", ".join(part for part in parts if part))
        return lines
    finally:
        await actuator.aclose()


def experts_table(config: CoeConfig, urls: Mapping[str, Sequence[str]]) -> Grid:
    """Every expert with its engine, size and active size, window, address, and what it is made of."""
    table = Grid(box=None, pad_edge=False, header_style="bold")
    for title in ("expert", "engine", "params", "active", "context", "address"):
        table.add_column(title, no_wrap=True)
    table.add_column("model and adapter", overflow="fold")
    for name, entry in config.engine_entries.items():
        table.add_row(
            name,
            entry.engine,
            f"{entry.params_b:g}B" if entry.params_b else "",
            f"{entry.active_b:g}B" if entry.active_b else "",
            "" if is_pooling(entry) and "context_tokens" not in entry.model_fields_set else str(entry.context_tokens),
            "\n".join(map(without_password, urls.get(name, entry.roots))) or address_hint(entry.engine),
            entry.model if entry.adapter is None else f"{entry.model} + {entry.adapter}",
        )
    return table


def without_password(url: str) -> str:
    """Return a URL as a list may show it."""
    parts = urlsplit(url)
    return url if parts.password is None else parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()


def address_hint(engine: Engine) -> str:
    """Says where an expert without an address of its own can be reached."""
    if engine is Engine.VLLM:
        return "not running"
    return "embedded" if engine is Engine.LLAMACPP else ""
