"""The command `coe certify`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from coe.base.visible_text import echo
from coe.cli.options import ConfigOption, DataOption, SinceOption, cache_folder, require_folder
from coe.cli.progress import console_progress


def certify(
    out: Annotated[Path, typer.Option(help="folder for report.html, report.json and the prompts to grade next")],
    policy: Annotated[str, typer.Option(help="policy with a quality_floor")],
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    within: Annotated[float, typer.Option(min=0.001, max=0.5, help="quality that may be lost, as guaranteed")] = 0.01,
    prompts: Annotated[
        Path | None, typer.Option(help="probes of your traffic (JSON lines), of which some are drawn to be graded")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="how many of them to draw at once")] = 100,
    log: Annotated[bool, typer.Option("--log", help="by feedback in the decision log instead of grades")] = False,
    since: SinceOption = 0.0,
    days: Annotated[int, typer.Option(min=1, max=3650, help="how long the certificate is valid")] = 90,
) -> None:
    """Show by exact tests on OUT/grades, or on the log, that a cheaper plan of a policy is good enough, or say what
    is missing. Write a signed certificate."""
    from coe.eval.certify.certificate_page import certificate_page
    from coe.eval.certify.certify import Claim
    from coe.eval.certify.prompts import GRADES_FOLDER, NEXT_FILE
    from coe.eval.certify.run import Places, run_certify
    from coe.eval.report.page import write_report

    require_folder(out)
    places = Places(config, data_dir, out, prompts, cache_folder(out / "embeddings"))
    asked = Claim(policy, within, datetime.now(UTC), days)
    with console_progress() as progress:
        made, n_next = run_certify(places, asked, since if log else None, batch, progress)
        written = write_report(made, certificate_page(made), out)
    lines = [made.statement, f"Still missing: {made.facts['Still missing']}", *(f"wrote {path}" for path in written)]
    if n_next:
        files = f"--probes {out / NEXT_FILE} --out {out / GRADES_FOLDER} --experts-file {config}"
        lines.append(f"{n_next} prompts to grade next: coe eval collect {files} --base-url URL; then run this again")
    echo("\n".join(lines))
