"""`coe eval robustness`: flips under harmless changes, and the expectations of routes.test.yaml."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from base.errors import ConfigError
from base.options import ConfigOption, DataOption, JsonOption, SeedOption, require_folder
from base.progress import console_progress
from base.terminal import Grid, Terminal
from base.visible_text import echo
from eval.command_options import command_line, split_names

if TYPE_CHECKING:
    from eval.robustness.flip_records import Flips, RobustnessRecord, RobustnessReport
    from router.types import Metric


def robustness(
    router: Annotated[Path | None, typer.Option(help="folder of a router; default: the live one of --data-dir")] = None,
    table: Annotated[bool, typer.Option("--table", help="take --router alone, without experts.yaml")] = False,
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    policy: Annotated[str, typer.Option(help="policy of experts.yaml")] = "default",
    queries: Annotated[Path | None, typer.Option(help="JSON lines with the key text, or a folder of them")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="outcome table: its test prompts, and what flips cost")] = None,
    tests: Annotated[Path | None, typer.Option(help="expectations, such as routes.test.yaml")] = None,
    only_tests: Annotated[bool, typer.Option("--only-tests", help="run --tests only, without counting flips")] = False,
    families: Annotated[str | None, typer.Option(help="families to measure, separated by commas")] = None,
    per_family: Annotated[int, typer.Option(min=1, help="maximum number of cases of a family for one text")] = 2,
    limit: Annotated[int | None, typer.Option(min=1, help="maximum number of texts, drawn at random")] = None,
    max_flips: Annotated[float, typer.Option(min=0, max=1, help="largest share of decisions that may flip")] = 0.05,
    out: Annotated[Path | None, typer.Option(help="folder for robustness.json")] = None,
    as_json: JsonOption = False,
    seed: SeedOption = 0,
) -> int:
    """Count decisions that flip under harmless changes of a text; run routes.test.yaml. Exit status 1 when a check
    fails."""
    from eval.robustness.expectations import check_expectations, load_expectations
    from eval.robustness.flip_records import RobustnessReport
    from eval.robustness.flips import measure_flips
    from eval.robustness.inputs import Texts, decider, drawn, find_router, find_texts

    if out is not None:
        require_folder(out)
    if only_tests and tests is None:
        raise ConfigError("--only-tests: it needs --tests FILE")
    if queries is not None and outcomes is not None:
        raise ConfigError("give either --queries FILE or --outcomes DIR")
    wanted = split_names(families, "--families")
    live, texts = find_router(router, config, data_dir, is_table=table), Texts((), "none")
    live.policy(policy)  # refuses an unknown name before any work
    flips = verdicts = None
    with console_progress() as progress:
        decide = decider(live, policy, progress)
        if tests is not None:  # before the measurement, so that a fault in the file is reported at once
            expected = load_expectations(tests, live.experts, live.categories)
            verdicts = check_expectations(expected, decide, file=str(tests))
        if not only_tests:
            texts = drawn(find_texts(queries, outcomes), limit, seed)
            flips = measure_flips(decide, texts.texts, seed, wanted, cases_per_family=per_family, known=texts.known)
    report = RobustnessReport(
        command=command_line(sys.argv[1:]),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        router_version=live.version,
        texts=texts.source,
        max_flips=max_flips,
        flips=flips,
        expectations=verdicts,
    )
    written = report.model_dump_json(indent=1)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "robustness.json").write_text(written + "\n", encoding="utf-8")
    if as_json:
        echo(written)
    else:
        print_report(report)
    for line in report.problems:
        echo(f"coe: {line}", to_stderr=True)
    return 1 if report.problems else 0


def print_report(report: RobustnessReport) -> None:
    console = Terminal(soft_wrap=True)
    console.print(f"router {report.router_version}")
    if report.flips is not None:
        console.print(flips_table(report.flips))
        console.print(
            f"{report.flips.n_texts} texts ({report.texts}), seed {report.flips.seed}; 95% intervals over texts",
        )
    if report.expectations is not None:
        found = report.expectations
        held = found.n_cases - len({failure.name for failure in found.failures})
        line = f"{found.file}: {held} of {found.n_cases} cases hold ({found.n_decisions} decisions)"
        console.print(line)


def flips_table(flips: RobustnessRecord) -> Grid:
    """One row a family, then all; the change of the score in points, where outcomes are known."""
    is_scored = flips.overall.quality_change is not None
    scored = ["score"] if is_scored else []
    table = Grid("family", "cases", "experts flip", "categories flip", *scored, "worst", title_justify="left")
    for name, family in flips.families.items():
        worst, part = max(family.templates.items(), key=lambda pair: pair[1].value)
        named = f"{worst} {part.value:.0%}" if part.value > 0 else ""
        table.add_row(name, *cells(family, is_scored), named)
    table.add_section()
    table.add_row("all", *cells(flips.overall, is_scored), "", style="bold")
    return table


def cells(flips: Flips, is_scored: bool) -> list[str]:
    change = flips.quality_change
    row = [str(flips.experts.n), share(flips.experts), share(flips.categories)]
    return [*row, "" if change is None else f"{100 * change.value:+.2f}"] if is_scored else row


def share(metric: Metric) -> str:
    if metric.interval is None:
        return f"{metric.value:.1%}"
    return f"{metric.value:.1%} [{100 * metric.interval.low:.1f}, {100 * metric.interval.high:.1f}]"
