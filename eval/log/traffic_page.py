"""The page of a traffic report: its sections, each a few sentences, tables and charts of the record."""

from __future__ import annotations

from collections.abc import Sequence

from base.money import money
from eval.log.traffic_charts import SHOWN_CATEGORIES, quality_chart, rates_chart, timeline_chart, volume_chart
from eval.log.traffic_records import Bias, CategoryRegret, Disagreement, Drift, Group, LogReport, Regret, Switch
from eval.log.traffic_words import moment, per_thousand, shares_text, stretch, switch_sentence, verdict, worsened
from eval.log.worth_section import loop_section, mix_section, worth_section
from eval.report.numbers import cell_of, milliseconds, number, percent, percent_range, points, points_range, rated
from eval.report.page import Block, Chart, Columns, Command, Figure, Heading, Note, Page, Row, Section, Table, table_of


def traffic_page(report: LogReport) -> Page:
    """The page of at least one decision."""
    warned = [Section("before", "Before you read", report.warnings, is_open=True)] if report.warnings else []
    totals, (title, tone) = report.totals, verdict(report)
    quality = quality_section(report)
    is_rated = isinstance(quality.blocks[0], Chart)
    return Page(
        kind=f"Traffic report from the decision log, {moment(totals.first_at)} to {moment(totals.last_at)}",
        title=title,
        lead=report.headline,
        figures=figures(report),
        sections=[
            *warned,
            volume_section(report),
            quality,
            regret_section(report.regret),
            drift_section(report.drift),
            *([mix_section(report)] if report.mix or report.mix_unknown else []),
            bias_section(report.bias),
            *([disagreement_section(report.disagreement)] if report.disagreement else []),
            *([loop_section(report.loop)] if report.loop else []),
            switches_section(report),
            worth_section(report),
            measured_section(report),
        ],
        first={
            **({"chart-quality-time": "How good the answers were"} if is_rated else {}),
            "chart-timeline": "Who served what",
        },
        tone=tone,
    )


def figures(report: LogReport) -> list[Figure]:
    totals, quality, regret = report.totals, report.bias.corrected, report.regret
    needed = f"needs {'more feedback' if regret.is_explored else 'exploration and feedback'}"
    lost = Figure("Regret per category", "unknown", needed)
    if regret.total is not None:
        lost = Figure("Regret per category", f"{points(regret.total.value)} pts", points_range(regret.total.interval))
    slow = "" if totals.p95_ms is None else f"95% within {milliseconds(totals.p95_ms)}"
    return [
        Figure("Quality, corrected", percent(quality.value), percent_range(quality.interval))
        if quality
        else Figure("Quality, corrected", "unknown", "no feedback"),
        lost,
        Figure("Cost", money(totals.cost_usd), f"{per_thousand(totals.cost_usd, totals.n)} per 1,000"),
        Figure("Latency, median", milliseconds(totals.p50_ms) or "none", slow),
        Figure(
            "Drift alarms",
            str(len(report.drift.alarms)),
            f"{len(report.drift.signals)} signals followed",
            "bad" if worsened(report.drift.alarms) else "",
        ),
    ]


def volume_section(report: LogReport) -> Section:
    """Decisions over time and by category, with who served them."""
    totals = report.totals
    ended = ", ".join(f"{state.replace('_', ' ')} {n:,}" for state, n in totals.by_state.items())
    blocks: list[Block] = [
        Chart(
            "chart-timeline",
            timeline_chart(report),
            "Decisions by the expert that served them. A dashed line marks the first decision of another router "
            "version. Times are UTC.",
        ),
        volume_chart(report),
        group_table("Category", report.categories),
        group_table("Expert", report.experts),
        Note(
            f"{totals.n_routed:,} decisions were routed, {totals.n_fallback:,} of them to general because their "
            "category was uncertain; in the others the client named the expert, or no expert could serve. How they "
            f"ended: {ended}. An answer's latency is from the request's arrival to the last byte."
        ),
    ]
    return Section("volume", "Who served what", blocks)


def group_table(title: str, groups: Sequence[Group]) -> Table:
    columns: Columns[Group] = {
        "Decisions": lambda _, group: f"{group.n:,}",
        "Share": lambda _, group: percent(group.share),
        "Answered": lambda _, group: percent(group.answered.value if group.answered else None),
        "Rated": lambda _, group: f"{group.n_rated:,}",
        "Quality": lambda _, group: cell_of(group.quality, unknown="unknown"),
        "Cost": lambda _, group: money(group.cost_usd),
        "Per 1,000": lambda _, group: per_thousand(group.cost_usd, group.n),
        "p50": lambda _, group: milliseconds(group.p50_ms),
        "p95": lambda _, group: milliseconds(group.p95_ms),
        "First byte": lambda _, group: milliseconds(group.ttft_p50_ms),
    }
    return table_of(title, {group.name: group for group in groups}, columns)


def quality_section(report: LogReport) -> Section:
    no_feedback = None if report.bias.raw else "No answer of this time has feedback."
    by_category = "Mean reward per category, with the number of rated answers in brackets."
    by_expert = "Mean reward per expert. Experts get different queries, so this does not compare experts."
    rated = [
        (name, [(f"{group.name} ({group.n_rated})", group.quality) for group in groups[:SHOWN_CATEGORIES]], caption)
        for name, groups, caption in (
            ("chart-categories", report.categories, by_category),
            ("chart-experts", report.experts, by_expert),
        )
    ]
    drawn = [rates_chart(name, rates, "mean reward (%), with 95% interval", caption) for name, rates, caption in rated]
    return Section("quality", "Quality", [quality_chart(report), *drawn, no_feedback])


def regret_section(regret: Regret) -> Section:
    """The gain of better choices, as far as it is known."""
    text = "Not known: no category has rated answers of two experts."
    if regret.total is not None:
        text = (
            f"With the best expert of each category in hindsight, quality would differ by {points(regret.total.value)} "
            f"points ({points_range(regret.total.interval)}), over the {percent(regret.coverage, 0)} of the routed "
            "traffic where that is known."
        )
    if regret.given_up is not None:
        text += (
            f" By its own predictions the router gave up {points(regret.given_up)} points on average to budgets, pins, "
            "exploration and stage 1."
        )
    if regret.explored is not None:
        text += f" Explored decisions earned {rated(regret.explored)}"
        if regret.exploited is not None:
            text += f", the others {rated(regret.exploited)}"
        text += "."
    columns: Columns[CategoryRegret] = {
        "Decisions": lambda _, row: f"{row.n:,}",
        "Served": lambda _, row: cell_of(row.served, unknown="unknown"),
        "Best expert": lambda _, row: row.best or "",
        "Regret in points": lambda _, row: cell_of(row.regret, points, "unknown") if row.regret else row.unknown,
    }
    table = table_of("Category", {row.category: row for row in regret.categories}, columns)
    note = Note(
        "An expert's reward on a category is the mean over its rated answers, each weighted by one over the "
        "probability with which it was chosen. The best expert is picked on one half of the answers and valued on the "
        "other, so that the largest of several noisy means is not overestimated. Negative: the router's choices "
        "per query beat any single expert."
    )
    blocks: list[Block] = [text, table, note] if regret.categories else [text]
    return Section("regret", "What better choices would have gained", blocks)


def drift_section(drift: Drift) -> Section:
    """Predictions against rewards, and alarms."""
    found = drift.prequential
    text = "No rated answer has a prediction to compare with."
    if found is not None:
        text = (
            f"The router's prediction fell on the right side of one half for {percent(found.accuracy.value)} of "
            f"{found.n:,} rated answers ({percent_range(found.accuracy.interval)}); it was off by "
            f"{number(found.error, 2)} on average, and the reward lay {points(found.bias)} points from the prediction. "
            "Every prediction was made before its reward was known."
        )
    rows = [
        Row(alarm.signal, [moment(alarm.at), number(alarm.before, 3), number(alarm.after, 3)]) for alarm in drift.alarms
    ]
    signals = ", ".join(f"{name} ({n:,})" for name, n in drift.signals.items()) or "nothing has enough values yet"
    note = Note(
        "The last time at which the mean of a signal changed, found as `coe retrain` finds when an expert changed "
        f"(in 1% of the logs in which nothing did): {signals}."
    )
    alarms = Table(["Signal", "Since (UTC)", "From", "To"], rows) if rows else "No alarm."
    return Section("drift", "Drift", [text, alarms, note])


def bias_section(bias: Bias) -> Section:
    """Shares of answers with feedback, and the mean corrected for them."""
    if bias.raw is None or bias.rated is None or bias.corrected is None:
        return Section("bias", "Who gives feedback", ["There was no feedback in this time."])
    text = (
        f"{percent(bias.rated.value)} of the answers were rated ({percent_range(bias.rated.interval)}). Their mean "
        f"reward is {rated(bias.raw)}; counting each for the answers of its category and expert gives "
        f"{rated(bias.corrected)}. {percent(bias.coverage, 0)} of the answers lie in a category and expert with "
        "feedback; of the rest nothing is known."
    )
    rates = [
        (group.name if group.by == "latency" else f"{group.by}: {group.name}", group.rated)
        for group in bias.groups[: 2 * SHOWN_CATEGORIES]
    ]
    caption = (
        "Share of the answers that got feedback. Where it differs between groups, the plain mean of the feedback is "
        "that of those who give any."
    )
    drawn = rates_chart("chart-rated", rates, "answers with feedback (%), with 95% interval", caption)
    return Section("bias", "Who gives feedback", [text, drawn])


def disagreement_section(found: Disagreement) -> Section:
    """Disagreement of the experts that strategies asked, as a sign of error."""
    text = (
        f"Strategies compared the answers to {found.n:,} decisions; {percent(found.mean)} of the other experts' "
        "answers differ from the served one."
    )
    if found.auroc is None:
        text += f" {found.n_rated:,} of them are rated: too few of both kinds to say whether that is a sign of error."
    else:
        text += (
            f" Of the {found.n_rated:,} rated ones a wrong answer had more disagreement than a right one with a "
            f"probability of {number(found.auroc.value, 2)} ({number(found.auroc.low, 2)} to "
            f"{number(found.auroc.high, 2)}; 0.5 is chance, AUROC)."
        )
    return Section("disagreement", "Disagreement as a sign of error", [text])


def switches_section(report: LogReport) -> Section:
    """Before and after each router, and what happened to routers."""
    blocks: list[Block] = [] if report.switches else ["One router served all of this time."]
    for switch in report.switches:
        blocks += [
            Heading(f"{switch.before[:8]} to {switch.after[:8]}, {moment(switch.at)} UTC"),
            switch_sentence(switch),
            moves_table(switch) if switch.moved else "No category went to other experts than before.",
        ]
    if report.events:
        rows = [Row(moment(one.at), [one.version[:8], one.event, one.detail]) for one in report.events]
        texts = ["Version", "Event", "Detail"]
        blocks += [Heading("What happened to routers"), Table(["Time (UTC)", *texts], rows, texts=texts)]
    return Section("switches", "Before and after each router", blocks)


def moves_table(switch: Switch) -> Table:
    rows = [
        Row(
            row.category,
            [
                shares_text(row.before),
                shares_text(row.after),
                f"{row.n_before:,}, {row.n_after:,}",
                cell_of(row.quality, points, "unknown"),
            ],
        )
        for row in switch.moved
    ]
    columns = ["Category", "Before", "After", "Decisions before and after", "Quality, points"]
    return Table(columns, rows, texts=["Before", "After"])


def measured_section(report: LogReport) -> Section:
    text = (
        "From the decision log and the feedback in SQL; no text of a query is read. The reward of an answer is the "
        "weighted mean of what was said about it, the same that `coe retrain` learns from. Intervals of means and "
        "shares are Wilson's, of differences Newcombe's, at 95%, and count answers to one question or of one key as "
        "dependent. A comparison of before and after is not an experiment: the traffic may have changed too."
    )
    made = (
        f"Made {report.created_at}. Each bar of the timeline covers {stretch(report.bucket_s)}. The same numbers are "
        "in report.json."
    )
    return Section("measured", "How this was measured", [text, Command(report.command), Note(made)])
