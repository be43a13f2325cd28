"""`coe experts up` and `set`: the vLLM engines of this host."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.base.visible_text import echo
from coe.cli import options
from coe.fleet.vllm_addresses import mark_asleep, read_vllm

if TYPE_CHECKING:
    from coe.fleet.residency.vllm_actuator import VllmActuator


class State(StrEnum):
    """States that an engine can be set to."""

    AWAKE = "awake"
    SLEEP_1 = "sleep_1"  # weights in host memory
    SLEEP_2 = "sleep_2"  # weights dropped
    STOPPED = "stopped"


def up(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
    once: Annotated[bool, typer.Option("--once", help="exit once every engine is ready")] = False,
) -> None:
    """Start the vLLM engines of experts.yaml and keep them running, for `coe up` and `coe serve`."""
    from uvloop import run

    from coe.fleet.experts_up import run_experts
    from coe.gateway.settings import engine_environment
    from coe.router.config import load_config

    known, folder = load_config(config), config.resolve().parent
    run(run_experts(known, folder, data_dir.resolve(), engine_environment(known), once=once))


def set_state(
    expert: Annotated[str, typer.Argument(help="any expert that the engine serves")],
    state: Annotated[State, typer.Argument(help="sleep_1 keeps the weights in host memory, sleep_2 drops them")],
    data_dir: options.DataOption = Path("data"),
) -> None:
    """Wake an engine, or start one that was stopped or has failed; or let it end its requests and free its GPU memory;
    or end it until it is woken."""
    from coe.base.errors import BackendError, EngineError
    from coe.cli.progress import working
    from coe.fleet.desired_state import DesiredProcesses
    from coe.fleet.experts_up import engine_lines
    from coe.fleet.residency.vllm_actuator import VllmActuator

    log = read_vllm(data_dir).engines_of(expert)[0].log

    async def run() -> list[str]:
        actuator = VllmActuator(lambda: read_vllm(data_dir).urls, DesiredProcesses(data_dir))
        try:
            await change(actuator, data_dir, expert, state)
            return await engine_lines(data_dir, expert)
        except BackendError as error:
            raise EngineError(f"{error}; its log may say why: {log}") from error
        finally:
            await actuator.aclose()

    with working("waiting for the engine ..."):
        lines = asyncio.run(run())
    for line in lines:
        echo(line)
    if state is State.SLEEP_1 or state is State.SLEEP_2:
        echo(f"without `residency` in experts.yaml, it gets no requests until `coe experts set {expert} awake`")


async def change(actuator: VllmActuator, data_dir: Path, expert: str, state: State) -> None:
    """Brings the engines of an expert into a state. Raises BackendError, EngineError."""
    from coe.base.errors import EngineError
    from coe.fleet.pool import PROBE_EVERY_S
    from coe.fleet.residency.types import SLEEPS

    if state is State.STOPPED:
        await actuator.stop(expert)
        return
    if state is State.AWAKE:
        await actuator.wake(expert)
        mark_asleep(data_dir, expert, False)  # who runs the engines may not have seen that it slept
        return
    was = await actuator.state(expert)
    if was in SLEEPS and was.value != state.value:
        raise EngineError(f"{expert} is {was}; `coe experts set {expert} awake` first")
    mark_asleep(data_dir, expert, True)
    try:
        await asyncio.sleep(2 * PROBE_EVERY_S)  # until gateways no longer send it requests
        await actuator.sleep(expert, 1 if state is State.SLEEP_1 else 2)
    except BaseException:  # also at Ctrl-C: nobody else would take the mark away
        mark_asleep(data_dir, expert, False)
        raise
