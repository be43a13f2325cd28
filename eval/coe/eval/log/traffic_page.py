"""The page of a traffic report, and its findings as text."""

from __future__ import annotations

from collections.abc import Iterator

from coe.base.money import money
from coe.eval.log.expert_worth import describe_worth
from coe.eval.log.traffic_records import LogReport
from coe.eval.log.traffic_sections import sections
from coe.eval.report import drawing
from coe.eval.report.numbers import counted, milliseconds, moment, percent, points
from coe.eval.report.page import Cell, Chart, Figure, Page, cell_of, cite

SHOWN_EXPERTS = 5
"""Number of experts with a colour of their own over time, the busiest."""
FEW_RATED = 30
"""Number of rated answers below which every quality in the report is little more than its interval (ours)."""
MAX_WIDTH = 0.2
"""Width of a quality's 95% interval above which the title gives no verdict: 20 points (ours). A drop that users
notice could hide in it."""


def traffic_page(report: LogReport) -> Page:
    """Build the page of at least one decision."""
    totals = report.totals
    quality, served = quality_chart(report), served_chart(report)
    return Page(
        kind=f"Traffic report from the decision log, {moment(totals.first_at)} to {moment(totals.last_at)}",
        title=verdict(report),
        lead=report.headline,
        figures=figures(report),
        picture=quality or served,
        sections=sections(report, served if quality else None),
        warnings=report.warnings,
    )


def headline(report: LogReport) -> str:
    """State the findings in a few sentences."""
    totals, bias = report.totals, report.bias
    lost = totals.n - totals.by_state.get("answered", 0)
    said = [
        f"{totals.n:,} decisions from {moment(totals.first_at)} to {moment(totals.last_at)} UTC; "
        f"{percent(lost / totals.n) if lost else 'none'} of them ended without a whole answer."
    ]
    if totals.left_out:
        said.append(f"Not counted: {', '.join(f'{count:,} {name}' for name, count in totals.left_out.items())}.")
    if bias.corrected is not None and bias.rated is not None:
        said.append(
            f"Answers are worth {cite(bias.corrected, percent)}, judged by the {percent(bias.rated.value)} that got "
            "feedback and corrected for who gives it."
        )
    else:
        said.append("No answer has feedback, so nothing can be said about quality.")
    if (worth := report.worth) is not None and (worth.dispensable or worth.doubt):
        said.append(describe_worth(worth))
    return " ".join(said)


def verdict(report: LogReport) -> str:
    """Return the title of the page."""
    quality = report.bias.corrected
    if quality is None:
        return f"{report.totals.n:,} decisions of unknown quality: no answer has feedback"
    found = cell_of(quality, percent)
    if quality.high - quality.low > MAX_WIDTH:
        return f"Too little feedback to tell: answers are worth {found.interval}"
    return f"Answers are worth {found.text}"


def warnings(report: LogReport) -> Iterator[str]:
    """Yield the reasons to doubt a figure."""
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
    raw, corrected = report.bias.raw, report.bias.corrected
    if raw and corrected and not corrected.low <= raw.value <= corrected.high:
        yield (
            f"Feedback is one-sided: as given its mean is {percent(raw.value)}, corrected it is "
            f"{percent(corrected.value)}."
        )


def figures(report: LogReport) -> list[Figure]:
    """Return the four figures at the top of the page."""
    totals, quality, worth = report.totals, report.bias.corrected, report.loop.worth if report.loop else None
    slow = "" if totals.p95_ms is None else f"95% within {milliseconds(totals.p95_ms)}"
    each = money(1000 * totals.cost_usd / totals.n)
    return [
        Figure("Quality, corrected", cell_of(quality, percent) if quality else Cell("unknown", "no feedback")),
        Figure("Won by learning, points", cell_of(worth or "unknown", points, is_difference=True)),
        Figure("Cost", Cell(money(totals.cost_usd), f"{each} per 1,000")),
        Figure("Latency, median", Cell(milliseconds(totals.p50_ms) or "none", slow)),
    ]


def served_chart(report: LogReport) -> Chart:
    """Draw the decisions over time, by the expert that served them."""
    busiest = [group.name for group in report.experts[:SHOWN_EXPERTS]]
    rows = [
        {"x": 1000 * one.start + 500 * report.bucket_s, "group": name, "y": n}
        for one in report.timeline
        for name, n in [
            *((name, one.by_expert.get(name, 0)) for name in busiest),
            ("others", sum(n for name, n in one.by_expert.items() if name not in busiest)),
        ]
    ]
    caption = (
        f"Decisions by the expert that served them, in {report.bucket_s / 60:,g} minutes each (UTC). A dashed line "
        "marks the first decision of another router version."
    )
    spec = drawing.lines(rows, (None, "decisions"), ",d", x=drawing.TIME_AXIS, moments=moments_of(report))
    return Chart(caption, spec)


def quality_chart(report: LogReport) -> Chart | None:
    """Draw the mean reward over time; None if fewer than two periods have feedback."""
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
    """Return the time in milliseconds at which each router version became live."""
    return {step.version[:8]: 1000 * step.at for step in report.loop.steps} if report.loop else {}
