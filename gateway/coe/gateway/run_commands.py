"""`coe up` and `coe serve`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coe.cli import options

if TYPE_CHECKING:
    from coe.gateway.settings import Settings

HostOption = Annotated[str | None, typer.Option("--host", help="address to listen on (COE_HOST; 127.0.0.1)")]
LearnOption = Annotated[
    bool, typer.Option("--learn/--no-learn", help="run `coe retrain` every hour, or as often as COE_LEARN_EVERY says")
]
PortOption = Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0: any free port (COE_PORT; 8000)")]


def up(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
    host: HostOption = None,
    port: PortOption = None,
    once: Annotated[bool, typer.Option("--once", help="exit once the gateway is ready")] = False,
    regrade: Annotated[
        bool, typer.Option("--regrade", help="ask every expert every probe again, and fit a router from that")
    ] = False,
    learn: LearnOption = True,
    probes: Annotated[Path | None, typer.Option("--probes", hidden=True)] = None,
) -> None:
    """Start services, experts and gateway; measure and fit on the first start; serve and learn."""
    begun_s = time.perf_counter()
    from uvloop import run

    from coe.cli.terminal import Terminal
    from coe.fleet.program_log import log_to_file
    from coe.gateway.up import run_up
    from coe.gateway.up_view import UpView

    settings, view = settings_of(config, data_dir, host, port, learn=learn and not once), UpView(Terminal(), begun_s)
    log_to_file(settings.data_dir, settings.log_level, settings.log_format)
    run(run_up(settings, view, once=once, probes=probes, is_regrading=regrade))


def serve(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
    host: HostOption = None,
    port: PortOption = None,
    learn: LearnOption = True,
) -> None:
    """Start the gateway for production: Redis and database from the environment, vLLM from `coe experts up`."""
    from uvloop import run

    from coe.fleet.program_log import LogReporter, log_to_stderr
    from coe.gateway.start import run_serve

    settings = settings_of(config, data_dir, host, port, learn=learn)
    log_to_stderr(settings.log_level, settings.log_format)
    run(run_serve(settings, LogReporter()))


def settings_of(
    config: Path,
    data_dir: Path,
    host: str | None,
    port: int | None,
    *,
    learn: bool = True,
) -> Settings:
    """The environment's settings; options win. Raises ConfigError."""
    from coe.gateway.settings import environment_settings

    given = {
        "COE_CONFIG": config,
        "COE_DATA_DIR": data_dir,
        "COE_HOST": host,
        "COE_PORT": port,
        "COE_LEARN_EVERY": None if learn else "off",
    }
    return environment_settings({name: str(value) for name, value in given.items() if value is not None})
