"""`coe outcomes export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from router.visible_text import echo


def export_outcomes(
    format_name: Annotated[str, typer.Option("--format", help="csv, jsonl or routerbench")],
    outcomes: Annotated[Path, typer.Option(help="outcome table to write")],
    out: Annotated[Path, typer.Option(help="file to write")],
) -> None:
    """Write an outcome table for another tool."""
    from eval.export_formats import ExportRequest, export

    n_rows = export(format_name, ExportRequest(out, outcomes))
    echo(f"wrote {n_rows} rows to {out}")
