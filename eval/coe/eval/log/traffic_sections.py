"""The sections of a traffic report, built from its record."""

from __future__ import annotations

from typing import Any

from coe.base.money import money
from coe.eval.log.expert_worth import describe_worth
from coe.eval.log.feedback_report import FeedbackReport
from coe.eval.log.loop_worth import loop_sentences
from coe.eval.log.traffic_records import Group, LogReport
from coe.eval.report import drawing
from coe.eval.report.numbers import moment, percent, points
from coe.eval.report.page import Chart, Column, Section, Table, cite, facts_of, record_table, table_of

SHOWN_CATEGORIES = 24
SHOWN_KEYS = 10
number = "{:.2f}".format


def sections(report: LogReport, served: Chart | None) -> list[Section]:
    """Return all sections; sections without content are empty.

    Args:
        served: the chart of each expert's share, if the page does not begin with it.
    """
    return [
        served_section(report, served),
        Section("Experts", table=group_table("Expert", report.experts), chart=cells_chart(report)),
        bias_section(report),
        *(feedback_sections(report.feedback) if report.feedback else ()),
        loop_section(report),
        worth_section(report),
        Section(
            "How this was measured",
            "From the decision log and the feedback; no text of a query is read. Intervals at 95% count answers to one "
            "question or of one key as dependent. docs/drift.md says how each figure is measured.",
            facts_of({"Command": report.command, "Made": report.created_at}),
        ),
    ]


def served_section(report: LogReport, chart: Chart | None) -> Section:
    """Return the section on routed decisions, and how they ended."""
    totals = report.totals
    ended = ", ".join(f"{state.replace('_', ' ')} {n:,}" for state, n in totals.by_state.items())
    said = (
        f"{totals.n_routed:,} decisions were routed, {totals.n_fallback:,} of them to general because their category "
        f"was uncertain; in the others the client named the expert, or no expert could serve. They ended: {ended}."
    )
    return Section("Who served what", said, group_table("Category", report.categories), chart)


def group_table(title: str, groups: tuple[Group, ...]) -> Table:
    """Build a table of groups with the cost of 1,000 decisions."""
    return record_table(title, groups, Column("Per 1,000", lambda group: 1000 * group.cost_usd / group.n, money))


def cells_chart(report: LogReport) -> Chart | None:
    """Draw each expert's share of the largest categories; None without any."""
    n = {group.name: group.n for group in report.categories[:SHOWN_CATEGORIES]}
    shares = {(one.category, one.expert): one.n / n[one.category] for one in report.cells if one.category in n}
    caption = "Share of the decisions of each category that an expert served; the largest categories."
    return Chart(caption, drawing.heat_map(shares, ("category", "expert"), ".0%", 1.0)) if shares else None


def bias_section(report: LogReport) -> Section:
    """Return the section on the share of answers with feedback, and on the corrected mean."""
    title, bias = "Who gives feedback", report.bias
    if bias.raw is None or bias.rated is None or bias.corrected is None:
        return Section(title, "There was no feedback in this time.")
    text = (
        f"{cite(bias.rated, percent)} of the answers were rated. Their mean reward is {cite(bias.raw, percent)}; "
        f"counting each for the answers of its category and expert gives {cite(bias.corrected, percent)}."
    )
    return Section(title, text)


def feedback_sections(said: FeedbackReport) -> list[Section]:
    """Return the sections on feedback by kind and by key, and on its agreement with signals and judges."""
    signals: list[Column[Any]] = [
        Column("Answers", lambda one: one.answers),
        Column("With feedback", lambda one: one.with_feedback),
        Column("Liked with", lambda one: one.mean_with if one.difference else None, percent),
        Column("Liked without", lambda one: one.mean_without if one.difference else None, percent),
        Column("Worse by, points", lambda one: one.difference, points),
        Column("Verdict", lambda one: one.verdict),
    ]
    judges: list[Column[Any]] = [
        Column("Grades", lambda one: one.grades),
        Column("Mean", lambda one: one.mean_grade, number),
        Column("With feedback", lambda one: one.with_feedback),
        Column("Correlation with people", lambda one: one.correlation, number),
        Column("Pairs", lambda one: one.pairs),
        Column("Same when swapped", lambda one: one.consistent),
    ]
    shown_keys = said.keys[:SHOWN_KEYS] if len(said.keys) > 1 else ()
    shown_signals = {one.kind.value: one for one in said.signals if one.answers}
    by_judge = {f"{one.judge}, rubric {one.rubric}": one for one in said.judges}
    return [
        Section("Kinds of feedback", table=record_table("Kind", said.kinds)),
        Section("Keys that gave feedback", table=record_table("Key", shown_keys)),
        Section("Signals of clients", table=table_of("Signal", shown_signals, signals)),
        Section("Judges", table=table_of("Judge", by_judge, judges)),
    ]


def loop_section(report: LogReport) -> Section:
    """Return the section on the last 30 days' routers: changes, worth, and the cost of exploration."""
    title, loop = "What learning was worth", report.loop
    if loop is None:
        return Section(title)
    table = record_table("Live since (UTC)", {f"{moment(step.at)}, {step.version[:8]}": step for step in loop.steps})
    return Section(title, " ".join([f"Since {moment(loop.since)} UTC.", *loop_sentences(loop)]), table)


def worth_section(report: LogReport) -> Section:
    """Return the section on the quality that would be lost without each expert, and what leaving it out would save."""
    title, worth = "Which expert earns its keep", report.worth
    if worth is None:
        return Section(title, report.worth_unknown and f"Not known: {report.worth_unknown}.")
    spent = {group.name: group.cost_usd for group in report.experts}
    lost = {(name, one.expert): loss.value for one in worth.experts for name, loss in one.by_category.items()}
    caption = "Quality of each category that would be lost without an expert."
    chart = Chart(caption, drawing.heat_map(lost, ("category", "without"), "+.0%")) if lost else None
    note = (
        f"By the same {worth.n:,} graded prompts with and without the expert, weighted by this traffic's categories. "
        "The map was solved on them too, which favours the expert a little."
    )
    table = record_table(
        "Expert",
        worth.experts,
        Column("Points per $", lambda one: one.loss_per(one.saved_usd), points, is_difference=True),
        Column("Points per GB", lambda one: one.loss_per(one.freed_gb), points, is_difference=True),
        Column("Cost in this traffic", lambda one: spent.get(one.expert, 0.0), money),
    )
    return Section(title, describe_worth(worth), table, chart, note)
