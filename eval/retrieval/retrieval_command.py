"""The command `coe eval retrieval`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from base.options import SeedOption
from eval.command_options import CacheOption, command_line, say
from eval.retrieval.retrieval_request import DEFAULT_MULTITASK


def retrieval(
    data: Annotated[Path, typer.Option(help="a collection in BEIR or MTEB layout, or a folder of them")],
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json and the pilot library")],
    experts: Annotated[
        list[Path] | None,
        typer.Option(help="experts.yaml, an adapter, or a folder of adapters; may be given several times"),
    ] = None,
    multitask: Annotated[
        str, typer.Option(help="expert that was trained on all collections, if there is one")
    ] = DEFAULT_MULTITASK,
    cache: CacheOption = None,
    seed: SeedOption = 0,
) -> None:
    """Report what routing between retrieval experts won on test queries: report.html and report.json."""
    from base.options import require_folder
    from base.progress import console_progress
    from eval.report.page import write_report
    from eval.retrieval.retrieval_page import retrieval_page
    from eval.retrieval.retrieval_request import RetrievalRequest
    from eval.retrieval.retrieval_run import run_retrieval
    from retrieval.routing.pilot_library import save_library

    require_folder(out)
    request = RetrievalRequest(
        data=data,
        out=out,
        experts=tuple(experts or ()),
        multitask=multitask,
        cache=cache or out / "embeddings",
        command=command_line(sys.argv[1:]),
        seed=seed,
    )
    with console_progress() as progress:
        report, library = run_retrieval(request, now=datetime.now(UTC), progress=progress)
        written = list(write_report(report, retrieval_page(report), out))
        if library is not None:
            save_library(library, out / "pilots")
            written.append(out / "pilots")
    say([report.headline, *report.losses, *(f"wrote {path}" for path in written)])
