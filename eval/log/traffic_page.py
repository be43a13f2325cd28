"""The page of a traffic report, and its findings in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from base.money import money
from eval.log.category_regret import MIN_EFFECTIVE
from eval.log.change_sections import change_sections, moment
from eval.log.expert_worth import sentence
from eval.log.feedback_sections import feedback_sections
from eval.log.traffic_records import (
    CategoryRegret,
    Group,
    LogReport,
    Regret,
    Totals,
)
from eval.report import drawing
from eval.report.numbers import counted, milliseconds, percent, points
from eval.report.page import Cell, Chart, Column, Figure, Page, Section, Table, cell_of, facts_of, stated, table_of
from training.category_mix import mix_sentence

SHOWN_CATEGORIES = 24
SHOWN_EXPERTS = 5
"""Experts with a colour of their own over time, the busiest."""
FEW_RATED = 30
"""Below this number of rated answers every quality in the report is little more than its interval (ours)."""
WIDEST = 0.2
"""Above this width of its 95% interval, 20 points, a quality draws no verdict (ours): a fall that users notice could
hide in it."""


def traffic_page(report: LogReport) -> Page:
    """The page of at least one decision; a section without anything to say is left out."""
    totals, (title, tone) = report.totals, verdict(report)
    quality, served = quality_chart(report), served_chart(report)
    sections = [
        served_section(report, served if quality else None),
        Section("Experts", table=group_table("Expert", report.experts), chart=cells_chart(report)),
        regret_section(report.regret),
        *feedback_sections(report),
        *change_sections(report),
        measured_section(report),
    ]
    return Page(
        kind=f"Traffic report from the decision log, {moment(totals.first_at)} to {moment(totals.last_at)}",
        title=title,
        lead=report.headline,
        figures=figures(report),
        picture=quality or served,
        sections=[one for one in sections if one.sentence or one.chart or (one.table and one.table.rows)],
        tone=tone,
        warnings=report.warnings,
    )


def headline(report: LogReport) -> str:
    """The findings in a few sentences."""
    totals, bias = report.totals, report.bias
    lost = totals.n - totals.by_state.get("answered", 0)
    said = [
        f"{totals.n:,} decisions from {moment(totals.first_at)} to {moment(totals.last_at)} UTC; "
        f"{percent(lost / totals.n) if lost else 'none'} of them ended without a whole answer."
    ]
    if beside := beside_the_traffic(totals):
        said.append(f"Not counted: {beside}.")
    if bias.corrected is not None and bias.rated is not None:
        said.append(
            f"Answers are worth {stated(bias.corrected, percent)}, judged by the {percent(bias.rated.value)} that got "
            "feedback and corrected for who gives it."
        )
    else:
        said.append("No answer has feedback, so nothing can be said about quality.")
    if (lost_by_choice := report.regret.total) is not None:
        said.append(
            "The best expert per category in hindsight would change that by "
            f"{stated(lost_by_choice, points, ' points')}."
        )
    if (mix := report.mix) is not None and cell_of(mix.moved, is_difference=True).tone:
        said.append(mix_sentence(mix.moved, is_followed=mix.is_followed))
    if (worth := report.worth) is not None and (worth.dispensable or worth.doubt):
        said.append(sentence(worth))
    return " ".join(said)


def beside_the_traffic(totals: Totals) -> str:
    """Rows of the log that the report leaves out; empty where there are none."""
    beside = (
        (totals.n_probes, "probe", " by coe itself"),
        (totals.n_malformed, "malformed request", ""),
        (totals.n_capped, "request", " over a cap of its key"),
    )
    return ", ".join(counted(count, what, f"{what}s") + by for count, what, by in beside if count)


def verdict(report: LogReport) -> tuple[str, str]:
    """The title of the page and its tone: what came since the last router, else the quality."""
    changed = cell_of(report.switches[-1].quality if report.switches else None, points, is_difference=True)
    if changed.tone:
        better = "better" if changed.tone == "good" else "worse"
        return f"Answers are {better} since the last router: {changed.text} points", changed.tone
    quality = report.bias.corrected
    if quality is None:
        return f"{report.totals.n:,} decisions of unknown quality: no answer has feedback", ""
    found = cell_of(quality, percent)
    if quality.high - quality.low > WIDEST:
        return f"Too little feedback to tell: answers are worth {found.interval}", ""
    return f"Answers are worth {found.text}", ""


def warnings(report: LogReport) -> Iterator[str]:
    """Reasons to doubt a figure."""
    for one in report.model_changes[-10:]:
        yield (
            f"The answers of {one.expert} name {one.after} since {moment(one.at)} UTC, and named {one.before} before: "
            "what was measured of it until then says nothing of it now."
        )
    n_rated = sum(group.n_rated for group in report.experts)
    if n_rated < FEW_RATED:
        yield (
            f"Only {counted(n_rated, 'answer has', 'answers have')} feedback: read intervals, not means. "
            "POST /v1/feedback takes thumbs, scores, edits and test results."
        )
    raw, corrected, regret = report.bias.raw, report.bias.corrected, report.regret
    if raw and corrected and not corrected.low <= raw.value <= corrected.high:
        yield (
            f"Feedback is one-sided: as given its mean is {percent(raw.value)}, corrected it is "
            f"{percent(corrected.value)}."
        )
    if report.totals.n_routed and regret.coverage < 0.5:
        why = "without exploration it is unknown what another expert would have answered (exploration of a policy)."
        if regret.is_explored:
            rated = round(regret.explored.n) if regret.explored is not None else 0
            why = (
                f"of {counted(regret.n_explored, 'answer', 'answers')} by exploration {rated or 'none'} got feedback. "
                f"A category needs feedback on {MIN_EFFECTIVE:g} answers of at least two experts."
            )
        yield f"Regret is known for {percent(regret.coverage, 0)} of the traffic only: {why}"


def figures(report: LogReport) -> list[Figure]:
    totals, quality, regret = report.totals, report.bias.corrected, report.regret
    needed = f"needs {'more feedback' if regret.is_explored else 'exploration and feedback'}"
    slow = "" if totals.p95_ms is None else f"95% within {milliseconds(totals.p95_ms)}"
    each = money(1000 * totals.cost_usd / totals.n)
    return [
        Figure("Quality, corrected", cell_of(quality, percent) if quality else Cell("unknown", "no feedback")),
        Figure("Regret, points", cell_of(regret.total, points) if regret.total else Cell("unknown", needed)),
        Figure("Cost", Cell(money(totals.cost_usd), f"{each} per 1,000")),
        Figure("Latency, median", Cell(milliseconds(totals.p50_ms) or "none", slow)),
    ]


def served_chart(report: LogReport) -> Chart:
    busiest = {group.name for group in report.experts[:SHOWN_EXPERTS]}
    width = 1000 * report.bucket_s
    rows = [
        {
            "x": 1000 * one.start,
            "end": 1000 * one.start + width,
            "group": expert if expert in busiest else "others",
            "n": n,
        }
        for one in report.timeline
        for expert, n in one.by_expert.items()
    ]
    caption = (
        f"Decisions by the expert that served them, in bars of {report.bucket_s / 60:,g} minutes (UTC). A dashed line "
        "marks the first decision of another router version."
    )
    return Chart(caption, drawing.bars(rows, "decisions", moments_of(report)))


def quality_chart(report: LogReport) -> Chart | None:
    """Mean reward over time. None without two stretches that have feedback."""
    half = 500 * report.bucket_s
    rows = [
        {"group": "", "x": 1000 * one.start + half, "y": found.value, "low": found.low, "high": found.high}
        for one in report.timeline
        if (found := one.quality) is not None
    ]
    if len(rows) < 2:
        return None
    caption = "Mean reward of the rated answers, by the time of the request (UTC). The band is the 95% interval."
    spec = drawing.lines(rows, (None, "mean reward"), ".0%", x=drawing.TIME_AXIS, moments=moments_of(report))
    return Chart(caption, spec)


def moments_of(report: LogReport) -> dict[str, float]:
    return {switch.after[:8]: 1000 * switch.at for switch in report.switches}


def cells_chart(report: LogReport) -> Chart | None:
    n = {group.name: group.n for group in report.categories[:SHOWN_CATEGORIES]}
    shares = {(one.category, one.expert): one.n / n[one.category] for one in report.cells if one.category in n}
    caption = "Share of the decisions of each category that an expert served; the largest categories."
    return Chart(caption, drawing.heat_map(shares, ("category", "expert"), ".0%", 1.0)) if shares else None


def served_section(report: LogReport, chart: Chart | None) -> Section:
    totals = report.totals
    ended = ", ".join(f"{state.replace('_', ' ')} {n:,}" for state, n in totals.by_state.items())
    said = (
        f"{totals.n_routed:,} decisions were routed, {totals.n_fallback:,} of them to general because their category "
        f"was uncertain; in the others the client named the expert, or no expert could serve. They ended: {ended}."
    )
    return Section("Who served what", said, group_table("Category", report.categories), chart)


def group_table(title: str, groups: Sequence[Group]) -> Table:
    columns: list[Column[Group]] = [
        Column("Decisions", lambda group: group.n),
        Column("Share", lambda group: group.share, percent),
        Column("Answered", lambda group: group.answered and group.answered.value, percent),
        Column("Rated", lambda group: group.n_rated),
        Column("Quality", lambda group: group.quality, percent),
        Column("Cost", lambda group: group.cost_usd, money),
        Column("Per 1,000", lambda group: 1000 * group.cost_usd / group.n, money),
        Column("p50", lambda group: group.p50_ms, milliseconds),
        Column("p95", lambda group: group.p95_ms, milliseconds),
        Column("First byte", lambda group: group.ttft_p50_ms, milliseconds),
    ]
    return table_of(title, {group.name: group for group in groups}, columns)


def regret_section(regret: Regret) -> Section:
    """The gain of better choices, as far as it is known."""
    text = "Not known: no category has rated answers of two experts."
    if regret.total is not None:
        text = (
            "With the best expert of each category in hindsight, quality would differ by "
            f"{stated(regret.total, points, ' points')}, over the {percent(regret.coverage, 0)} of the routed traffic "
            "where that is known."
        )
    if regret.given_up is not None:
        text += (
            f" By its own predictions the router gave up {points(regret.given_up)} points on average to budgets, pins, "
            "exploration and stage 1."
        )
    if regret.explored is not None:
        others = f", the others {stated(regret.exploited, percent)}" if regret.exploited is not None else ""
        text += f" Explored decisions earned {stated(regret.explored, percent)}{others}."
    columns: list[Column[CategoryRegret]] = [
        Column("Decisions", lambda row: row.n),
        Column("Served", lambda row: row.served, percent),
        Column("Best expert", lambda row: row.best),
        Column("Regret, points", lambda row: row.regret, points),
    ]
    table = table_of("Category", {row.category: row for row in regret.categories}, columns, how=lambda row: row.unknown)
    note = "By propensities, cross-fitted. Negative: the choices per query beat any single expert."
    return Section("What better choices would have gained", text, table, note=note)


def measured_section(report: LogReport) -> Section:
    text = (
        "From the decision log and the feedback; no text of a query is read. Intervals at 95% count answers to one "
        "question or of one key as dependent. docs/drift.md says how each figure is measured; report.json has them all."
    )
    return Section("How this was measured", text, facts_of({"Command": report.command, "Made": report.created_at}))
