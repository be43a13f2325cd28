"""Sub-commands of the eval package, found through the entry-point group `coe.commands`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

COMMANDS = {"eval routing": "eval.commands:routing", "eval collect": "eval.commands:collect"}

ExpertsOption = Annotated[str | None, typer.Option("--experts", help="experts to keep, separated by commas")]


def split_names(value: str | None) -> tuple[str, ...] | None:
    """Names of a comma-separated option; None when it was not given."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else None


def routing(
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json and the trained router")],
    table: Annotated[str | None, typer.Option(help="name of a table in --tables")] = None,
    tables: Annotated[Path | None, typer.Option(help="file of named tables; their sources lie beside it")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="outcome table: prompts.parquet and scores.parquet")] = None,
    test: Annotated[Path | None, typer.Option(help="report on this table; fit on all of the other")] = None,
    experts: ExpertsOption = None,
    benchmark: Annotated[str | None, typer.Option(help="only prompts of this benchmark")] = None,
    metric: Annotated[str | None, typer.Option(help="only scores of this metric")] = None,
    category_column: Annotated[str, typer.Option(help="column of prompts.parquet that holds the labels")] = "category",
    budget: Annotated[
        list[str] | None, typer.Option(help="upper bound such as active_params_b=31; may be given several times")
    ] = None,
    encoder: Annotated[str, typer.Option(help="kind of encoder")] = "onnx",
    classifier: Annotated[str, typer.Option(help="kind of classifier")] = "logistic",
    seed: Annotated[int, typer.Option(help="of every random draw")] = 0,
) -> None:
    """Report what routing won on an outcome table, with intervals: report.html and report.json."""
    from rich.console import Console

    from eval.report.page import write_report
    from eval.routing import command_line, run_routing
    from eval.trial_tables import RoutingRequest, apply_named_table, find_outcomes, parse_budgets

    folder, entry = find_outcomes(table, tables, outcomes)
    request = RoutingRequest(
        outcomes=folder,
        out=out,
        command=command_line(sys.argv[1:]),
        test=test,
        experts=split_names(experts),
        benchmark=benchmark,
        metric=metric,
        category_column=category_column,
        budgets=parse_budgets(budget or []),
        encoder=encoder,
        classifier=classifier,
        seed=seed,
    )
    with Console(stderr=True).status("starting") as status:
        report = run_routing(apply_named_table(request, entry), now=datetime.now(UTC), progress=status.update)
        status.update("drawing the report")
        written = write_report(report, out)
    say([report.headline, *(f"wrote {path}" for path in written)])


def say(lines: Sequence[str]) -> None:
    from rich.console import Console

    for line in lines:
        Console(soft_wrap=True).print(line, highlight=False, markup=False)
