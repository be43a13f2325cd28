"""`coe up`, `coe serve`, `coe experts up`, `coe experts pull`, `coe doctor gpu` and `coe config apply`."""

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
    from coe.fleet.processes.program_log import log_to_file
    from coe.gateway.lifecycle.up import UpView, run_up

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

    from coe.fleet.processes.program_log import LogReporter, log_to_stderr
    from coe.gateway.lifecycle.start import run_serve

    settings = settings_of(config, data_dir, host, port, learn=learn)
    log_to_stderr(settings.log_level, settings.log_format)
    run(run_serve(settings, LogReporter()))


def experts_up(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
) -> None:
    """Start the vLLM engines of experts.yaml and keep them running, for `coe up` and `coe serve`."""
    from uvloop import run

    from coe.cli.terminal import Terminal
    from coe.fleet.hosts.experts_up import run_experts
    from coe.gateway.settings import engine_environment
    from coe.router.config.composition import load_config

    known, folder = load_config(config), config.resolve().parent
    run(run_experts(known, folder, data_dir.resolve(), engine_environment(known), Terminal()))


def experts_pull(config: options.ConfigOption = Path("experts.yaml")) -> None:
    """Download the models of the vLLM engines of experts.yaml, so that no start waits for the hub.

    Takes what vLLM would load, by the interpreter of `vllm.python`, into HF_HOME. What is there is only checked.
    """
    from coe.base.visible_text import echo
    from coe.fleet.vllm.pull import pull_models
    from coe.gateway.settings import engine_environment
    from coe.router.config.composition import load_config

    known = load_config(config)
    for line in pull_models(known, config.resolve().parent, engine_environment(known)):
        echo(line)


def doctor_gpu(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
) -> None:
    """Try on this host's first GPU what engines must be able to do, with models of random weights: about 20 minutes.

    Starts, sleep with answers compared, kills, a GPU that others use, turns and throughput. The GPU must be free.
    Takes `vllm` of experts.yaml. Writes `doctor/gpu.md` and `gpu.json` into the data folder; the placement of engines
    uses what was measured. Exits with 1 if something is broken.
    """
    from uvloop import run

    from coe.base.visible_text import echo
    from coe.cli.progress import console_progress
    from coe.fleet.doctor.report import examine
    from coe.gateway.settings import engine_environment
    from coe.router.config.composition import load_config

    known = load_config(config)
    with console_progress() as tell:
        findings = run(examine(known.vllm, data_dir.resolve(), engine_environment(known), tell))
    echo((data_dir / "doctor" / "gpu.md").read_text(encoding="utf-8"))
    if any(each.verdict == "broken" for each in findings):
        raise typer.Exit(1)


DryRunOption = Annotated[bool, typer.Option("--dry-run", help="only show what would change, or why it is refused")]
BackOption = Annotated[bool, typer.Option("--back", help="take the configuration that was in force before, instead")]


def apply(
    config: options.ConfigOption = Path("experts.yaml"),
    data_dir: options.DataOption = Path("data"),
    dry_run: DryRunOption = False,
    back: BackOption = False,
) -> None:
    """Have every running gateway of the data folder take experts.yaml as it is now, without a restart.

    All of it is checked first. Gateways swap within a second; requests that run keep what they had. A step back holds,
    over restarts too, until experts.yaml changes.
    """
    from coe.base.visible_text import echo
    from coe.decision_log.admin_log import note_command, operator
    from coe.gateway.changes.difference import checked, differences
    from coe.gateway.changes.in_force import current, parsed, put, text_before
    from coe.router.build import live_router
    from coe.router.config.composition import config_text
    from coe.router.live_pointer import live_manifest

    found, in_file = current(data_dir), config_text(config)
    text = text_before(found) if back else in_file
    wanted = checked(text, config, data_dir, parsed(found.started, config))
    if live_manifest(data_dir) is not None:
        live_router(wanted, data_dir)  # raises where it does not fit
    for line in differences(parsed(found.text, config), wanted).values() or ["nothing changes"]:
        echo(line)
    if dry_run:
        return
    after = put(data_dir, text, in_file, operator())
    numbers = str(after.number - 1), str(after.number)
    note_command(data_dir, "back" if back else "apply", "configuration", *numbers)
    echo(f"configuration {after.number} is in force; `GET /v1/admin/config` says whether a gateway serves it")
    if text != in_file:
        echo(f"{config} is as it was: put it right too, because other commands (`coe retrain`, `coe check`) read it")


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
