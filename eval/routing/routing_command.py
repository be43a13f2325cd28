"""The command `coe eval routing`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from base.options import SeedOption
from eval.command_options import CacheOption, ExpertsOption, command_line, say, split_names


def routing(
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json and the trained router")],
    table: Annotated[str | None, typer.Option(help="name of a table in --tables")] = None,
    tables: Annotated[
        Path | None, typer.Option(help="file of named tables; their sources are folders beside it")
    ] = None,
    outcomes: Annotated[Path | None, typer.Option(help="outcome table: prompts.parquet and scores.parquet")] = None,
    test: Annotated[Path | None, typer.Option(help="report on this table, and fit on all of the other one")] = None,
    experts: ExpertsOption = None,
    benchmark: Annotated[str | None, typer.Option(help="only prompts of this benchmark")] = None,
    metric: Annotated[str | None, typer.Option(help="only scores of this metric")] = None,
    category_column: Annotated[str, typer.Option(help="column of prompts.parquet that holds the labels")] = "category",
    budget: Annotated[
        list[str] | None, typer.Option(help="upper bound such as active_params_b=31; may be given several times")
    ] = None,
    method: Annotated[str | None, typer.Option(help="kind of scorer that is reported as coe; default: map")] = None,
    encoder: Annotated[str | None, typer.Option(help="kind of encoder, or several joined by +")] = None,
    classifier: Annotated[str | None, typer.Option(help="kind of classifier")] = None,
    cache: CacheOption = None,
    seed: SeedOption = 0,
    folds: Annotated[
        int, typer.Option(min=0, help="also decide all prompts in so many parts, each by a router fitted on the others")
    ] = 0,
) -> None:
    """Measure routing on an outcome table, with intervals; writes report.html and report.json."""
    from base.options import require_folder
    from base.progress import console_progress
    from eval.report.page import write_report
    from eval.routing.routing_page import routing_page
    from eval.routing.routing_run import run_routing
    from eval.routing.trial_tables import RoutingRequest, apply_named_table, find_outcomes, parse_budgets

    require_folder(out)
    folder, entry = find_outcomes(table, tables, outcomes)
    request = RoutingRequest(
        outcomes=folder,
        out=out,
        command=command_line(sys.argv[1:]),
        test=test,
        experts=split_names(experts, "--experts"),
        benchmark=benchmark,
        metric=metric,
        category_column=category_column,
        budgets=parse_budgets(budget or []),
        encoder=encoder,
        classifier=classifier,
        method=method,
        cache=cache or out / "embeddings",
        seed=seed,
        folds=folds,
    )
    with console_progress() as progress:
        report = run_routing(apply_named_table(request, entry), now=datetime.now(UTC), progress=progress)
        progress("drawing the report")
        written = write_report(report, routing_page(report), out)
    say([report.headline, *(f"wrote {path}" for path in written)])
