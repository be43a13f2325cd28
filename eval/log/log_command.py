"""The command `coe eval log`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.options import ConfigOption, DatabaseOption, DataOption, SinceOption, unix_time
from eval.commands import command_line, say

if TYPE_CHECKING:
    from eval.log.traffic_records import LogReport


def log(
    out: Annotated[Path, typer.Option(help="folder for report.html and report.json")],
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    database_url: DatabaseOption = None,
    since: SinceOption = 0.0,
    until: Annotated[str | None, typer.Option(help="ISO date or time; decisions from then on are left out")] = None,
) -> None:
    """Report on production traffic: volume, quality, cost, latency, regret, drift, feedback. Writes report.html and
    .json."""
    from collections import Counter
    from datetime import UTC, datetime

    from base.options import require_folder
    from base.progress import console_progress
    from decision_log.default_database import default_database_url
    from eval.log.measure_log import measure_log
    from eval.log.traffic import read_events, read_traffic
    from eval.log.traffic_page import traffic_page
    from eval.report.page import write_report
    from training.loop_worth import measure_loop, request_of

    require_folder(out)
    end = float("inf") if until is None else unix_time(until, "--until")
    with console_progress() as progress:
        progress("reading the decision log")
        url = database_url or default_database_url(data_dir)
        left_out: Counter[str] = Counter()
        traffic = read_traffic(url, since=since, until=end, left_out=left_out, progress=progress)
        events = read_events(url, since=since, until=end)
        progress(f"measuring {len(traffic):,} decisions")
        typed, now = command_line(sys.argv[1:]), datetime.now(UTC)
        report = measure_log(traffic, command=typed, now=now, events=events, left_out=left_out)
        last = datetime.fromtimestamp(traffic.at[-1] + 1, UTC)
        report = report.model_copy(
            update={"loop": measure_loop(request_of(config, data_dir, url, last), last, progress)}
        )
        progress("leaving each expert out of the map")
        report = with_worth(report, config, data_dir / "outcomes")
        progress("drawing the report")
        written = write_report(report, traffic_page(report), out)
    say([report.headline, *report.warnings, *(f"wrote {path}" for path in written)])


def with_worth(report: LogReport, config: Path, outcomes: Path) -> LogReport:
    """The report with what each expert is worth for its traffic, or why that is not known."""
    from base.errors import RouterError
    from training.expert_worth import read_worth, sentence

    try:
        worth = read_worth(config, outcomes, {group.name: group.n for group in report.categories})
    except RouterError as error:
        return report.model_copy(update={"worth_unknown": str(error)})
    headline = f"{report.headline} {sentence(worth)}" if worth.dispensable else report.headline
    return report.model_copy(update={"worth": worth, "headline": headline})
