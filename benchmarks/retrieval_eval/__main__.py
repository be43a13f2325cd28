"""Reports what routing between retrieval experts won on test queries: `python -m benchmarks.retrieval_eval`.

Writes report.html, report.json and the pilot library that was measured.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.retrieval_eval.page import retrieval_page
from benchmarks.retrieval_eval.request import RetrievalRequest
from benchmarks.retrieval_eval.run import run_retrieval
from coe.base.visible_text import echo
from coe.cli.options import SeedOption, cache_folder, require_folder
from coe.cli.progress import console_progress
from coe.eval.report.page import write_report
from coe.retrieval.routing.pilot_library import save_library


def retrieval(
    data: Annotated[Path, typer.Option(help="a collection in BEIR layout, or a folder of them")],
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json and the pilot library")],
    experts: Annotated[Path | None, typer.Option(help="experts.yaml; without it kind bert and BM25 compete")] = None,
    seed: SeedOption = 0,
) -> None:
    """Report what routing between retrieval experts won on test queries."""
    require_folder(out)
    command = " ".join(["python -m benchmarks.retrieval_eval", *sys.argv[1:]])
    request = RetrievalRequest(data, experts, cache_folder(out / "embeddings"), command, seed)
    with console_progress() as progress:
        report, library = run_retrieval(request, now=datetime.now(UTC), progress=progress)
        written = list(write_report(report, retrieval_page(report), out))
        if library is not None:
            save_library(library, out / "pilots")
            written.append(out / "pilots")
    echo("\n".join([report.headline, *report.losses, *(f"wrote {path}" for path in written)]))


if __name__ == "__main__":
    typer.run(retrieval)
