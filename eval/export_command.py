"""`coe outcomes export` and `coe eval arena`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from router.visible_text import echo


def export_outcomes(
    format_name: Annotated[str, typer.Option("--format", help="csv, jsonl, llmrouter, routerbench or router_arena")],
    out: Annotated[Path, typer.Option(help="file to write")],
    outcomes: Annotated[Path | None, typer.Option(help="outcome table to write")] = None,
    router: Annotated[
        Path | None, typer.Option(help="router_arena: folder of a router that `coe train --table` fitted")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="router_arena: its file of prompts")] = None,
    name: Annotated[list[str] | None, typer.Option(help="router_arena: EXPERT=THEIRS; may be repeated")] = None,
) -> None:
    """Write an outcome table, or a router's decisions, for another tool."""
    from eval.export_formats import ExportRequest, export, load_exporter

    exporter = load_exporter(format_name)
    n_rows = export(exporter, ExportRequest(out, outcomes, router, prompts, parse_names(name or [])))
    echo(f"wrote {n_rows} rows to {out}")


def parse_names(options: Sequence[str]) -> dict[str, str]:
    """`EXPERT=THEIRS` options. Raises ConfigError."""
    from router.errors import ConfigError

    pairs = [option.partition("=") for option in options]
    for option, (ours, _, theirs) in zip(options, pairs, strict=True):
        if not ours or not theirs:
            raise ConfigError(f"--name: '{option}' is not allowed; expected EXPERT=THEIRS, such as small=gpt-4o-mini")
    return {ours: theirs for ours, _, theirs in pairs}


def arena(
    predictions: Annotated[Path, typer.Argument(help="prediction file that RouterArena's scripts have graded")],
) -> None:
    """Score a RouterArena prediction file by RouterArena's own formula."""
    from eval.arena_files import score_predictions

    result = score_predictions(predictions)
    echo(
        f"RouterArena score {result.score:.4f}: accuracy {result.accuracy:.4f} of {result.n_graded}, "
        f"{result.cost_per_1k_usd:.4f} USD per 1,000 queries"
    )
    for count, what in (
        (result.n_predictions - result.n_graded, "predictions have no accuracy and are not in its mean"),
        (result.n_predictions - result.n_priced, "predictions have no cost and count as free"),
        (result.n_optimality, "entries for optimality are left out"),
    ):
        if count:
            echo(f"{count} {what}")
