"""The command `coe eval log`."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from coe.base.errors import ConfigError, RouterError
from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, SinceOption, require_folder, unix_time
from coe.cli.progress import Progress, console_progress
from coe.eval.command_options import command_line

if TYPE_CHECKING:
    from coe.eval.log.traffic import Traffic

T = TypeVar("T")


def log(
    out: Annotated[Path, typer.Option(help="folder for report.html and report.json")],
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    since: SinceOption = 0.0,
    until: Annotated[
        float,
        typer.Option(
            parser=lambda value: unix_time(value, "--until"),
            metavar="TIME",
            show_default=False,
            help="ISO date or time; decisions from then on are left out",
        ),
    ] = math.inf,
    foreign: Annotated[
        str | None,
        typer.Option("--import", help="log of another gateway: litellm or openai; what routing would have saved"),
    ] = None,
    policy: Annotated[str, typer.Option(help="with --import: the policy that would have routed")] = "default",
    files: Annotated[list[Path] | None, typer.Argument(help="with --import: its files")] = None,
) -> None:
    """Report on production traffic: volume, quality, cost, latency, regret, feedback. Writes report.html and .json.
    With --import: what routing would have saved another gateway's users."""
    from coe.decision_log.default_database import database_url_of
    from coe.eval.log.measure_log import measure_log
    from coe.eval.log.traffic import read_traffic
    from coe.eval.log.traffic_page import traffic_page
    from coe.eval.report.page import write_report

    require_folder(out)
    if foreign is not None or files:
        report_savings(foreign or "", files or [], policy, out, config, data_dir)
        return
    with console_progress() as progress:
        progress("reading the decision log")
        url = database_url_of(data_dir)
        traffic = read_traffic(url, since=since, until=until, progress=progress)
        learned = read_learned(config, data_dir, traffic, since, until, progress)
        progress(f"measuring {len(traffic):,} decisions")
        report = measure_log(
            traffic,
            command=command_line(sys.argv[1:]),
            now=datetime.now(UTC),
            **learned,
        )
        written = write_report(report, traffic_page(report), out)
    echo("\n".join([report.headline, *report.warnings, *(f"wrote {path}" for path in written)]))


def read_learned(
    config: Path, data_dir: Path, traffic: Traffic, since: float, until: float, progress: Progress
) -> dict[str, Any]:
    """Return the fields of the report on feedback, learning and the worth of experts."""
    from coe.decision_log.default_database import database_url_of
    from coe.eval.log.expert_worth import read_worth
    from coe.eval.log.feedback_report import feedback_report
    from coe.eval.log.loop_worth import measure_loop, request_of
    from coe.router.config.composition import load_config

    url = database_url_of(data_dir)
    loaded, _ = try_read(lambda: load_config(config))
    weights = loaded.feedback.key_weights if loaded else {}
    last = datetime.fromtimestamp(traffic.at[-1] + 1, UTC)
    found: dict[str, Any] = {
        "feedback": feedback_report(url, since=since, until=until, key_weights=weights),
        "loop": measure_loop(request_of(config, data_dir, last), last, progress),
    }
    progress("leaving each expert out of the map")
    asked = Counter(traffic.category[traffic.is_routed].tolist())
    found["worth"], found["worth_unknown"] = try_read(lambda: read_worth(config, data_dir / "outcomes", asked))
    return found


def report_savings(kind: str, files: list[Path], policy: str, out: Path, config: Path, data_dir: Path) -> None:
    """Write the report on another gateway's log; raise ConfigError, DataError or ArtifactError if an input cannot be
    used."""
    from coe.eval.log.foreign_logs import read_calls
    from coe.eval.log.savings import measure_savings, route_calls, savings_page
    from coe.eval.report.page import write_report
    from coe.router.build import live_router
    from coe.router.config.composition import load_config
    from coe.router.model_files.artifact import load_artifact

    if not files:
        raise ConfigError(f"--import {kind}: name the files to read")
    left_out: Counter[str] = Counter()
    with console_progress() as progress:
        progress("reading the log")
        calls = read_calls(kind, files, left_out)
        composition = load_config(config)
        router = live_router(composition, data_dir).without_exploration()
        artifact = load_artifact(data_dir / "routers" / router.version)
        found = route_calls(router, artifact, composition, calls, policy, progress)
        typed, now = command_line(sys.argv[1:]), datetime.now(UTC).isoformat(timespec="seconds")
        report = measure_savings(found, calls, router.version, left_out, typed, now)
        written = write_report(report, savings_page(report), out)
    echo("\n".join([report.headline, *report.warnings, *(f"wrote {path}" for path in written)]))


def try_read(read: Callable[[], T]) -> tuple[T | None, str]:
    """Return the value that `read` returns and no reason, or None and the error's text."""
    try:
        return read(), ""
    except RouterError as error:
        return None, str(error)
