"""`coe up` and `coe serve`."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gateway.settings import Settings

ConfigOption = Annotated[Path | None, typer.Option("--config", help="experts.yaml to read (COE_CONFIG)")]
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="folder of everything that is kept (COE_DATA_DIR)")]
HostOption = Annotated[str | None, typer.Option("--host", help="address to listen on (COE_HOST; 127.0.0.1)")]
PortOption = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0: any free port (COE_PORT; 8000)")]


def up(
    config: ConfigOption = None,
    data_dir: DataOption = None,
    host: HostOption = None,
    port: PortOption = None,
    once: Annotated[bool, typer.Option("--once", help="exit once every first query is answered")] = False,
    probes: Annotated[Path | None, typer.Option("--probes", hidden=True)] = None,
) -> None:
    """Start services, experts and gateway; measure and fit on the first start; ask one query per category; serve."""
    from fleet.program_log import log_to_file
    from gateway.up import run_up
    from gateway.up_view import UpView
    from router.shipped import DEFAULT_CONFIG, copy_composition
    from router.terminal import Terminal

    settings, view = settings_of(config, data_dir, host, port), UpView(Terminal())
    if settings.config_path == DEFAULT_CONFIG and not DEFAULT_CONFIG.exists():
        copy_composition(Path())
        view.note("there was no experts.yaml here: wrote the one that ships with coe, and its adapters under examples/")
    log_to_file(settings.data_dir, settings.log_level)
    run(run_up(settings, view, once=once, probes=probes))


def serve(
    config: ConfigOption = None, data_dir: DataOption = None, host: HostOption = None, port: PortOption = None
) -> None:
    """Start the gateway for production: Redis and database from the environment, vLLM from `coe experts up`."""
    from fleet.program_log import LogReporter, log_to_stderr
    from gateway.up import run_serve

    settings = settings_of(config, data_dir, host, port)
    log_to_stderr(settings.log_level)
    run(run_serve(settings, LogReporter()))


def run(program: Coroutine[None, None, None]) -> None:
    """Runs a program on uvloop, which takes a third less CPU per request than asyncio's own loop; Windows has none."""
    import asyncio

    from gateway.freed_memory import keep_large_blocks_apart

    keep_large_blocks_apart()
    if sys.platform == "win32":
        asyncio.run(program)
    else:
        import uvloop

        uvloop.run(program)


def settings_of(config: Path | None, data_dir: Path | None, host: str | None, port: int | None) -> Settings:
    """The environment's settings; options win. Raises ConfigError."""
    from gateway.settings import environment_settings

    options = {"COE_CONFIG": config, "COE_DATA_DIR": data_dir, "COE_HOST": host, "COE_PORT": port}
    return environment_settings({name: str(value) for name, value in options.items() if value is not None})
