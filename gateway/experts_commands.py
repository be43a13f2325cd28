"""`coe experts up | stop | logs | sleep | wake | pin`: the vLLM engines of this host."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base import options
from base.visible_text import echo
from fleet.vllm_addresses import mark_asleep, read_vllm, stop_vllm

if TYPE_CHECKING:
    from fleet.residency.vllm_actuator import VllmActuator

ExpertArgument = Annotated[str, typer.Argument(help="any expert that the engine serves")]
STOP_S = 120.0


def up(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
    once: Annotated[bool, typer.Option("--once", help="exit once every engine is ready")] = False,
) -> None:
    """Start the vLLM engines of experts.yaml and keep them running, for `coe up` and `coe serve`."""
    from fleet.experts_up import run_experts
    from gateway.event_loop import run
    from gateway.settings import engine_environment
    from router.config import load_config

    known, folder = load_config(config), config.resolve().parent
    run(run_experts(known, folder, data_dir.resolve(), engine_environment(known), once=once))


def stop(
    experts: Annotated[
        list[str] | None, typer.Argument(help="experts whose engines end; without any, `coe experts up` ends")
    ] = None,
    data_dir: options.DataOption = Path("data"),
) -> None:
    """End the engines of some experts until `coe experts wake`, or `coe experts up` with all of them."""
    if not experts:
        echo(f"ended process {stop_vllm(data_dir, STOP_S)}, and its engines with it")
        return
    for expert in experts:
        move(data_dir, expert, methodcaller("stop", expert))


def sleep(
    expert: ExpertArgument,
    data_dir: options.DataOption = Path("data"),
    level: Annotated[int, typer.Option("--level", min=1, max=2, help="1: weights to host memory; 2: drop them")] = 1,
) -> None:
    """Let an engine end its requests and free its GPU memory."""
    import asyncio

    from base.errors import EngineError
    from fleet.pool import PROBE_EVERY_S
    from fleet.residency.types import SLEEPS

    async def change(actuator: VllmActuator) -> None:
        was = await actuator.state(expert)
        if was in SLEEPS and was is not SLEEPS[level - 1]:
            raise EngineError(
                f"{expert} sleeps at level {3 - level}; for another level `coe experts wake {expert}` first"
            )
        mark_asleep(data_dir, expert, True)
        try:
            await asyncio.sleep(2 * PROBE_EVERY_S)  # until gateways no longer send it requests
            await actuator.sleep(expert, 1 if level == 1 else 2)
        except BaseException:  # also at Ctrl-C: nobody else would take the mark away
            mark_asleep(data_dir, expert, False)
            raise

    move(data_dir, expert, change)
    echo(f"without `residency` in experts.yaml, it gets no requests until `coe experts wake {expert}`")


def wake(expert: ExpertArgument, data_dir: options.DataOption = Path("data")) -> None:
    """Wake an engine, or start one that was stopped or has failed."""
    move(data_dir, expert, methodcaller("wake", expert))
    mark_asleep(data_dir, expert, False)  # who runs the engines may not have seen that it slept


def pin(
    expert: ExpertArgument,
    data_dir: options.DataOption = Path("data"),
    is_off: Annotated[bool, typer.Option("--off", help="let it sleep again")] = False,
) -> None:
    """Keep an expert awake whatever the others are asked for, until `--off`."""
    from fleet.engine_wishes import change_wishes

    read_vllm(data_dir).engines_of(expert)
    one = frozenset({expert})
    change_wishes(
        data_dir, lambda was: was.model_copy(update={"pinned": was.pinned - one if is_off else was.pinned | one})
    )
    echo(f"{expert}: {'may sleep' if is_off else 'pinned'}")


def logs(
    expert: ExpertArgument,
    data_dir: options.DataOption = Path("data"),
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="number of lines, the last ones")] = 50,
) -> None:
    """Show the last lines of an engine's log, and where it is."""
    from fleet.process import last_lines

    for engine in read_vllm(data_dir).engines_of(expert):
        for line in last_lines(Path(engine.log), lines, 400 * lines):
            echo(line)
        echo(f"log: {engine.log}")


def move(data_dir: Path, expert: str, change: Callable[[VllmActuator], Awaitable[None]]) -> None:
    """Changes the state of the engines of an expert, and shows it. Raises EngineError."""
    import asyncio

    from base.errors import BackendError, EngineError
    from base.progress import working
    from fleet.engine_wishes import WishedProcesses
    from fleet.experts_up import engine_lines
    from fleet.residency.vllm_actuator import VllmActuator

    read_vllm(data_dir).engines_of(expert)

    async def run() -> list[str]:
        actuator = VllmActuator(lambda: read_vllm(data_dir).urls, WishedProcesses(data_dir))
        try:
            await change(actuator)
            return await engine_lines(data_dir, expert)
        except BackendError as error:
            raise EngineError(f"{error}; `coe experts logs {expert}` may say why") from error
        finally:
            await actuator.aclose()

    with working("waiting for the engine ..."):
        lines = asyncio.run(run())
    for line in lines:
        echo(line)
