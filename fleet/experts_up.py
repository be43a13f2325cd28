"""Runs the vLLM engines of one host in the foreground."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from base.errors import ConfigError, EngineError
from base.terminal import Grid, Terminal
from fleet.engines import Fleet
from fleet.process import ProcessState
from fleet.status_view import watch
from fleet.stop_signal import stop_on_signal
from fleet.vllm_addresses import claim_vllm, remove_vllm_addresses, write_vllm_addresses
from fleet.vllm_command import managed_experts
from router.config import CoeConfig, Engine


async def run_experts(
    config: CoeConfig,
    folder: Path,
    data_dir: Path,
    environment: Mapping[str, str],
    *,
    once: bool,
    console: Terminal | None = None,
) -> None:
    """Starts the engines, writes their addresses for `coe up` and `coe serve`, and returns after SIGINT or SIGTERM.

    Raises:
        ConfigError: no entry needs an engine, or one is wrong.
        EngineError: an engine did not start, or every one of them has died for good; others may run on this folder.
    """
    if not managed_experts(config):
        raise ConfigError("no expert has engine 'vllm' without a url: nothing to start")
    lock = claim_vllm(data_dir)
    fleet = Fleet(config, folder, data_dir, environment, engines={Engine.VLLM, Engine.FAKE_VLLM})
    with stop_on_signal() as stop:
        starting = asyncio.create_task(start_and_announce(fleet, data_dir))
        stopping = asyncio.create_task(stop.wait())

        def is_over() -> bool:
            return stop.is_set() or (
                starting.done() and (once or starting.exception() is not None or all_failed(fleet))
            )

        try:
            await watch(fleet, console or Terminal(), is_over)
            if starting.done():
                starting.result()
                if all_failed(fleet):
                    raise EngineError("every engine has failed: " + "; ".join(reasons(fleet)))
        finally:
            starting.cancel()
            stopping.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            remove_vllm_addresses(data_dir)
            await fleet.stop()
            lock.release()


async def start_and_announce(fleet: Fleet, data_dir: Path) -> None:
    addresses = await fleet.start()
    write_vllm_addresses(data_dir, addresses.urls)


def all_failed(fleet: Fleet) -> bool:
    states = [status.state for status, _ in fleet.statuses]
    return bool(states) and all(state is ProcessState.FAILED for state in states)


def reasons(fleet: Fleet) -> list[str]:
    return [status.reason or status.name for status, _ in fleet.statuses]


def experts_table(config: CoeConfig, urls: Mapping[str, str]) -> Grid:
    """Every expert with its engine, size and active size, window, address, and what it is made of."""
    table = Grid(box=None, pad_edge=False, header_style="bold")
    for title in ("expert", "engine", "params", "active", "context", "address"):
        table.add_column(title, no_wrap=True)
    table.add_column("model and adapter", overflow="fold")
    for name, entry in config.experts.items():
        table.add_row(
            name,
            entry.engine,
            f"{entry.params_b:g}B" if entry.params_b else "",
            f"{entry.active_b:g}B" if entry.active_b else "",
            str(entry.context_tokens),
            urls.get(name) or entry.url or address_hint(entry.engine),
            entry.model if entry.adapter is None else f"{entry.model} + {entry.adapter}",
        )
    return table


def address_hint(engine: Engine) -> str:
    """Says where an expert without an address of its own can be reached."""
    if engine.is_vllm:
        return "not running"
    return "embedded" if engine is Engine.LLAMACPP else ""
