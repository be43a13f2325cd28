"""The summary that `coe eval robustness` prints."""

from __future__ import annotations

from base.terminal import Grid, Terminal
from eval.robustness.flip_records import Flips, RobustnessRecord, RobustnessReport
from router.types import Metric


def print_report(report: RobustnessReport) -> None:
    console = Terminal(soft_wrap=True)
    console.print(f"router {report.router_version}", highlight=False)
    if report.flips is not None:
        console.print(flips_table(report.flips))
        console.print(
            f"{report.flips.n_texts} texts ({report.texts}), seed {report.flips.seed}; 95% intervals over texts",
            highlight=False,
        )
    if report.expectations is not None:
        found = report.expectations
        held = found.n_cases - len({failure.name for failure in found.failures})
        line = f"{found.file}: {held} of {found.n_cases} cases hold ({found.n_decisions} decisions)"
        console.print(line, highlight=False)


def flips_table(flips: RobustnessRecord) -> Grid:
    """One row a family, then all; the change of the score in points, where outcomes are known."""
    is_scored = flips.overall.quality_change is not None
    table = Grid(title_justify="left")
    for heading in ("family", "cases", "experts flip", "categories flip"):
        table.add_column(heading)
    if is_scored:
        table.add_column("score")
    table.add_column("worst")
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
