"""The command `coe eval retrieval`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from coe.base.visible_text import echo
from coe.cli.options import SeedOption, cache_folder, require_folder, with_options
from coe.cli.progress import console_progress
from coe.eval.command_options import command_line
from coe.eval.retrieval.retrieval_request import RetrievalOptions, RetrievalRequest


@with_options
def retrieval(options: RetrievalOptions, seed: SeedOption = 0) -> None:
    """Report what routing between retrieval experts won on test queries: report.html and report.json."""
    from coe.eval.report.page import write_report
    from coe.eval.retrieval.retrieval_page import retrieval_page
    from coe.eval.retrieval.retrieval_run import run_retrieval
    from coe.retrieval.routing.pilot_library import save_library

    require_folder(options.out)
    request = RetrievalRequest(
        **options.model_dump(),
        cache=cache_folder(options.out / "embeddings"),
        command=command_line(sys.argv[1:]),
        seed=seed,
    )
    with console_progress() as progress:
        report, library = run_retrieval(request, now=datetime.now(UTC), progress=progress)
        written = list(write_report(report, retrieval_page(report), options.out))
        if library is not None:
            save_library(library, options.out / "pilots")
            written.append(options.out / "pilots")
    echo("\n".join([report.headline, *report.losses, *(f"wrote {path}" for path in written)]))
