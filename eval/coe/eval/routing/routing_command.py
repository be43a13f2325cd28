"""The command `coe eval routing`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from coe.base.visible_text import echo
from coe.cli.options import cache_folder, require_folder, with_options
from coe.cli.progress import console_progress
from coe.eval.command_options import ExpertsOption, command_line, split_names
from coe.eval.routing.routing_request import RoutingOptions, RoutingRequest


@with_options
def routing(
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json and the trained router")],
    outcomes: Annotated[Path, typer.Option(help="outcome table: prompts.parquet and scores.parquet")],
    experts: ExpertsOption = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="upper bound such as active_params_b=31; may be given several times")
    ] = None,
    *,
    options: RoutingOptions,
) -> None:
    """Measure routing on an outcome table, with intervals; write report.html and report.json."""
    from coe.eval.report.page import write_report
    from coe.eval.routing.routing_page import routing_page
    from coe.eval.routing.routing_run import run_routing
    from coe.eval.routing.trial_tables import parse_budgets

    require_folder(out)
    request = RoutingRequest(
        **options.model_dump(),
        outcomes=outcomes,
        out=out,
        command=command_line(sys.argv[1:]),
        experts=split_names(experts, "--experts"),
        budgets=parse_budgets(budget or []),
        cache=cache_folder(out / "embeddings"),
    )
    with console_progress() as progress:
        report = run_routing(request, now=datetime.now(UTC), progress=progress)
        progress("drawing the report")
        written = write_report(report, routing_page(report), out)
    echo("\n".join([report.headline, *(f"wrote {path}" for path in written)]))
