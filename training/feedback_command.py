"""`coe log feedback`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from base.options import ConfigOption, DataOption, JsonOption, SinceOption
from base.progress import working
from base.terminal import Grid, Terminal
from base.visible_text import echo

if TYPE_CHECKING:
    from router.types import Metric
    from training.feedback_report import FeedbackReport

MAX_GROUPS = 20
MAX_KEYS = 10


def log_feedback(
    config: ConfigOption = Path("experts.yaml"),
    data_dir: DataOption = Path("data"),
    since: SinceOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Show who gives feedback, what correcting for that changes, and which implicit signals agree with it."""
    from decision_log.default_database import database_url_of
    from router.config import load_config
    from training.feedback_report import feedback_report

    with working("reading answers and feedback ..."):
        report = feedback_report(
            database_url_of(data_dir),
            since=since,
            key_weights=load_config(config).feedback.key_weights,
        )
    if as_json:
        echo(report.model_dump_json(indent=1))
        return
    console = Terminal()
    for line in overview(report):
        console.print(line, soft_wrap=True)
    if report.groups:
        console.print(group_table(report))
    if report.replies:
        console.print(signal_table(report))
    if report.judges:
        console.print(judge_table(report))
    if len(report.keys) > 1:
        console.print(key_table(report))


def overview(report: FeedbackReport) -> Iterator[str]:
    share = report.replies / report.answers if report.answers else 0.0
    yield f"{report.replies:,} of {report.answers:,} answers got feedback ({share:.1%})"
    for each in report.kinds:
        yield f"  {each.kind}: {each.pieces:,} pieces, mean {each.mean:.2f}"
    if report.replies:
        yield f"mean of what was said: {in_words(report.raw)}"
        yield f"corrected for who says it: {in_words(report.corrected)}"


def in_words(metric: Metric | None) -> str:
    if metric is None or metric.interval is None:
        return "-"
    return f"{metric.value:.3f} ({metric.interval.low:.3f} to {metric.interval.high:.3f})"


def group_table(report: FeedbackReport) -> Grid:
    table = Grid("category", "expert", "answers", "replied", "mean of replies", "corrected")
    table.names = 2
    for each in report.groups[:MAX_GROUPS]:
        share = f"{each.replies / each.answers:.1%}"
        table.add_row(
            each.category, each.expert, f"{each.answers:,}", share, in_words(each.raw), in_words(each.corrected)
        )
    if len(report.groups) > MAX_GROUPS:
        table.caption = f"the {MAX_GROUPS} largest of {len(report.groups)} groups"
    return table


def signal_table(report: FeedbackReport) -> Grid:
    table = Grid("what clients did", "answers", "with feedback", "liked with", "liked without", "worse by", "verdict")
    for each in report.signals:
        means = (each.mean_with, each.mean_without) if each.difference else (None, None)
        numbers = (f"{each.answers:,}", f"{each.with_feedback:,}", *("-" if m is None else f"{m:.2f}" for m in means))
        table.add_row(each.kind.value, *numbers, in_words(each.difference), each.verdict)
    return table


def key_table(report: FeedbackReport) -> Grid:
    table = Grid("key", "pieces", "share", "mean", "weight")
    for each in report.keys[:MAX_KEYS]:
        table.add_row(each.key_id, f"{each.pieces:,}", f"{each.share:.1%}", f"{each.mean:.2f}", f"{each.weight:g}")
    return table


def judge_table(report: FeedbackReport) -> Grid:
    table = Grid("judge", "rubric", "grades", "mean", "with feedback", "correlation with people", "same when swapped")
    table.names = 2
    for each in report.judges:
        swapped = f"{each.consistent:,} of {each.pairs:,}" if each.pairs else "-"
        numbers = (f"{each.grades:,}", f"{each.mean_grade:.2f}", f"{each.with_feedback:,}", in_words(each.correlation))
        table.add_row(each.judge, each.rubric, *numbers, swapped)
    return table
