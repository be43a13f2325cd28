"""The findings of a traffic report in sentences."""

from __future__ import annotations

from datetime import UTC, datetime

from base.money import money
from eval.log.category_regret import MIN_EFFECTIVE
from eval.log.traffic_records import Alarm, LogReport, Switch, Totals
from eval.report.numbers import counted, percent, percent_range, points, points_range, rated

SHOWN_CHANGES = 10
FEW_RATED = 30
"""Below this number of rated answers every quality in the report is little more than its interval (ours)."""


def headline(report: LogReport) -> str:
    """The findings in a few sentences."""
    totals = report.totals
    lost = totals.n - totals.by_state.get("answered", 0)
    sentences = [
        f"{totals.n:,} decisions from {moment(totals.first_at)} to {moment(totals.last_at)} UTC; "
        f"{percent(lost / totals.n) if lost else 'none'} of them ended without a whole answer."
    ]
    if beside := beside_the_traffic(totals):
        sentences.append(f"Not counted: {beside}.")
    bias = report.bias
    if bias.corrected is not None and bias.rated is not None:
        sentences.append(
            f"Answers are worth {rated(bias.corrected)}, judged by the {percent(bias.rated.value)} that got feedback "
            "and corrected for who gives it."
        )
    else:
        sentences.append("No answer has feedback, so nothing can be said about quality.")
    if report.regret.total is not None:
        sentences.append(
            f"The best expert per category in hindsight would change that by "
            f"{points(report.regret.total.value)} points ({points_range(report.regret.total.interval)})."
        )
    sentences.append(alarm_sentence(report.drift.alarms))
    return " ".join(sentences)


WIDEST = 0.2
"""Above this width of its 95% interval, 20 points, a quality draws no verdict (ours): a fall that users notice could
hide in it."""

FALLS_BADLY = ("reward", "prequential accuracy")
"""Signals that are better when they are higher; of all others less is better."""


def verdict(report: LogReport) -> tuple[str, str]:
    """The headline of the page and its tone: what came since the last router, else what is worse, else the quality."""
    quality = report.switches[-1].quality if report.switches else None
    if quality is not None and quality.high < 0:
        return f"Answers are worse since the last router: {points(quality.value)} points", "bad"
    if quality is not None and quality.low > 0:
        return f"Answers are better since the last router: {points(quality.value)} points", "good"
    corrected, worse = report.bias.corrected, worsened(report.drift.alarms)
    if worse:
        return f"Look closer: {worse[-1].signal} became worse", "bad"
    if corrected is None:
        return f"{report.totals.n:,} decisions of unknown quality: no answer has feedback", ""
    if corrected.high - corrected.low > WIDEST:
        return f"Too little feedback to tell: answers are worth {percent_range(corrected.interval)}", ""
    return f"Nothing became worse: answers are worth {percent(corrected.value)}", "good"


def worsened(alarms: tuple[Alarm, ...]) -> list[Alarm]:
    return [one for one in alarms if (one.after < one.before) == one.signal.startswith(FALLS_BADLY)]


def beside_the_traffic(totals: Totals) -> str:
    """Rows of the log that the report leaves out; empty where there are none."""
    beside = (
        (totals.n_probes, "probe", " by coe itself"),
        (totals.n_malformed, "malformed request", ""),
        (totals.n_capped, "request", " over a cap of its key"),
    )
    return ", ".join(counted(count, what, f"{what}s") + by for count, what, by in beside if count)


def alarm_sentence(alarms: tuple[Alarm, ...]) -> str:
    if not alarms:
        return "Nothing that was followed has drifted."
    last = alarms[-1]
    return (
        f"{len(alarms)} drift alarm{'s' if len(alarms) > 1 else ''}, the last at {moment(last.at)} UTC: "
        f"{last.signal} went from {last.before:.2f} to {last.after:.2f}."
    )


def warnings(report: LogReport) -> tuple[str, ...]:
    """Reasons to doubt a figure."""
    found = [f"Left out: {count:,} {reason}." for reason, count in report.left_out.items()]
    found += [
        f"The answers of {one.expert} name {one.after} since {moment(one.at)} UTC, and named {one.before} before: what "
        "was measured of it until then says nothing of it now."
        for one in report.model_changes[-SHOWN_CHANGES:]
    ]
    n_rated = sum(group.n_rated for group in report.experts)
    if n_rated < FEW_RATED:
        found.append(
            f"Only {counted(n_rated, 'answer has', 'answers have')} feedback: read intervals, not means. "
            "POST /v1/feedback takes thumbs, scores, edits and test results."
        )
    bias = report.bias
    if bias.raw and bias.corrected and not bias.corrected.low <= bias.raw.value <= bias.corrected.high:
        found.append(
            f"Feedback is one-sided: as given its mean is {percent(bias.raw.value)}, corrected it is "
            f"{percent(bias.corrected.value)}."
        )
    if report.totals.n_routed and report.regret.coverage < 0.5:
        found.append(
            f"Regret is known for {percent(report.regret.coverage, 0)} of the traffic only: {why_unknown(report)}"
        )
    return tuple(found)


def why_unknown(report: LogReport) -> str:
    """The data that is missing to estimate what other experts would have answered."""
    regret = report.regret
    if not regret.is_explored:
        return "without exploration it is unknown what another expert would have answered (exploration of a policy)."
    rated = round(regret.explored.n) if regret.explored is not None else 0
    return (
        f"of {counted(regret.n_explored, 'answer', 'answers')} by exploration {rated or 'none'} got feedback. "
        f"A category needs feedback on {MIN_EFFECTIVE:g} answers of at least two experts."
    )


def switch_sentence(switch: Switch) -> str:
    """Quality before and after a new version."""
    if switch.quality is None:
        effect = "One of the two has no feedback, so their quality cannot be compared."
    else:
        sure = "better" if switch.quality.low > 0 else "worse" if switch.quality.high < 0 else "not surely different"
        interval = points_range(switch.quality.interval)
        effect = f"Quality changed by {points(switch.quality.value)} points ({interval}): {sure}."
    together = f" They served side by side for {switch.n_overlap:,} decisions." if switch.n_overlap else ""
    policy = f" under the policy {switch.policy}" if switch.policy != "default" else ""
    return f"{switch.n_before:,} decisions before, {switch.n_after:,} after{policy}. {effect}{together}"


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def per_thousand(value: float, n: int) -> str:
    return money(1000 * value / n) if n else ""


def stretch(seconds: float) -> str:
    """Length of a bucket of the timeline."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}s" if count > 1 else f"one {name}"
    return f"{seconds:g} seconds"


def shares_text(shares: dict[str, float]) -> str:
    """The largest shares of a category's traffic."""
    shown = list(shares.items())[:3]
    return ", ".join(f"{name} {percent(share, 0)}" for name, share in shown)
