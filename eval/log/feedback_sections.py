"""The sections of a traffic report on feedback: who gives it, what it says, and who else agrees with it."""

from __future__ import annotations

from eval.log.traffic_records import Bias, LogReport, RatedShare
from eval.report.numbers import percent, points
from eval.report.page import Column, Section, stated, table_of
from training.feedback_bias import SignalAgreement
from training.feedback_report import FeedbackReport, JudgeAgreement, KeyCount, KindCount

SHOWN_KEYS = 10
number = "{:.2f}".format


def feedback_sections(report: LogReport) -> list[Section]:
    said = report.feedback
    sections = (kinds_section, keys_section, signals_section, judges_section)
    of_others = [] if said is None else [section(said) for section in sections]
    return [bias_section(report.bias), *of_others]


def kinds_section(said: FeedbackReport) -> Section:
    columns: list[Column[KindCount]] = [
        Column("Pieces", lambda one: one.pieces),
        Column("Mean", lambda one: one.mean, number),
    ]
    return Section("Kinds of feedback", table=table_of("Kind", {one.kind: one for one in said.kinds}, columns))


def keys_section(said: FeedbackReport) -> Section:
    """The keys, where there are several."""
    columns: list[Column[KeyCount]] = [
        Column("Pieces", lambda one: one.pieces),
        Column("Share", lambda one: one.share, percent),
        Column("Mean", lambda one: one.mean, number),
        Column("Weight in training", lambda one: one.weight, "{:g}".format),
    ]
    keys = {one.key_id: one for one in said.keys[:SHOWN_KEYS]} if len(said.keys) > 1 else {}
    return Section("Keys that gave feedback", table=table_of("Key", keys, columns))


def signals_section(said: FeedbackReport) -> Section:
    """Signals of clients that came, compared with feedback on the same answers."""
    columns: list[Column[SignalAgreement]] = [
        Column("Answers", lambda one: one.answers),
        Column("With feedback", lambda one: one.with_feedback),
        Column("Liked with", lambda one: one.mean_with if one.difference else None, percent),
        Column("Liked without", lambda one: one.mean_without if one.difference else None, percent),
        Column("Worse by, points", lambda one: one.difference, points),
        Column("Verdict", lambda one: one.verdict),
    ]
    signals = {one.kind.value: one for one in said.signals if one.answers}
    return Section("Signals of clients", table=table_of("Signal", signals, columns))


def judges_section(said: FeedbackReport) -> Section:
    columns: list[Column[JudgeAgreement]] = [
        Column("Grades", lambda one: one.grades),
        Column("Mean", lambda one: one.mean_grade, number),
        Column("With feedback", lambda one: one.with_feedback),
        Column("Correlation with people", lambda one: one.correlation, number),
        Column("Pairs", lambda one: one.pairs),
        Column("Same when swapped", lambda one: one.consistent),
    ]
    judges = {f"{one.judge}, rubric {one.rubric}": one for one in said.judges}
    return Section("Judges", table=table_of("Judge", judges, columns))


def bias_section(bias: Bias) -> Section:
    """Shares of answers with feedback, and the mean corrected for them."""
    if bias.raw is None or bias.rated is None or bias.corrected is None:
        return Section("Who gives feedback", "There was no feedback in this time.")
    text = (
        f"{stated(bias.rated, percent)} of the answers were rated. Their mean reward is {stated(bias.raw, percent)}; "
        f"counting each for the answers of its category and expert gives {stated(bias.corrected, percent)}."
    )
    columns: list[Column[RatedShare]] = [
        Column("Answers", lambda group: group.n),
        Column("Rated", lambda group: group.rated, percent),
    ]
    return Section(
        "Who gives feedback", text, table_of("Group", {f"{g.by}: {g.name}": g for g in bias.groups}, columns)
    )
