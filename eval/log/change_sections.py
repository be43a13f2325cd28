"""The sections of a traffic report on how traffic and routers changed, and on what learning and experts are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from base.money import money
from eval.log.expert_worth import CompositionWorth, ExpertWorth, sentence
from eval.log.loop_worth import LoopWorth, RouterStep, loop_sentences
from eval.log.traffic_records import LogReport, Moved, Prequential, RouterEvent, Switch
from eval.report import drawing
from eval.report.numbers import percent, points
from eval.report.page import Chart, Column, Section, stated, table_of
from router.types import Metric
from training.category_mix import TrafficMix, mix_sentence


def change_sections(report: LogReport) -> list[Section]:
    return [
        predictions_section(report.predictions),
        mix_section(report.mix, report.mix_unknown),
        loop_section(report.loop),
        switches_section(report.switches),
        moved_section(report.switches),
        events_section(report.events),
        worth_section(report),
    ]


def predictions_section(found: Prequential | None) -> Section:
    text = "No rated answer has a prediction to compare with."
    if found is not None:
        text = (
            f"The router's prediction fell on the right side of one half for {stated(found.accuracy, percent)} of "
            f"{found.n:,} rated answers; it was off by {found.error:.2f} on average, and the reward lay "
            f"{points(found.bias)} points from the prediction. Every prediction was made before its reward was known."
        )
    return Section("What the router promised", text)


def mix_section(mix: TrafficMix | None, unknown: str) -> Section:
    """Distance of the traffic's mix of categories from the labelled queries that stage 1 learned from."""
    title = "How far the traffic has moved"
    if mix is None:
        return Section(title, unknown and f"Not known: {unknown}.")
    columns: list[Column[tuple[float, Metric]]] = [
        Column("Labelled", lambda pair: pair[0], percent),
        Column("Traffic", lambda pair: pair[1], percent),
    ]
    shares = {name: (mix.labelled[name], share) for name, share in mix.traffic.items()}
    return Section(title, mix_sentence(mix.moved, is_followed=mix.is_followed), table_of("Category", shares, columns))


def loop_section(loop: LoopWorth | None) -> Section:
    """Changes by the routers of the last 30 days, what they are worth, and what exploring cost."""
    title = "What learning was worth"
    if loop is None:
        return Section(title)
    columns: list[Column[RouterStep]] = [
        Column("Router", lambda step: step.version[:8]),
        Column("Changes", lambda step: "; ".join(f"{name}: {move}" for name, move in step.changes.items()) or "none"),
    ]
    table = table_of("Live since (UTC)", [(moment(step.at), step) for step in loop.steps], columns)
    return Section(title, " ".join([f"Since {moment(loop.since)} UTC.", *loop_sentences(loop)]), table)


def switches_section(switches: Sequence[Switch]) -> Section:
    columns: list[Column[Switch]] = [
        Column("Since (UTC)", lambda one: moment(one.at)),
        Column("Policy", lambda one: one.policy),
        Column("Decisions before", lambda one: one.n_before),
        Column("After", lambda one: one.n_after),
        Column("Side by side", lambda one: one.n_overlap),
        Column("Quality before", lambda one: one.quality_before, percent),
        Column("Quality after", lambda one: one.quality_after, percent),
        Column("Change, points", lambda one: one.quality, points, is_difference=True),
    ]
    table = table_of("Router", {f"{one.before[:8]} to {one.after[:8]}": one for one in switches}, columns)
    text = "Compared under the policy that both served most. This is no experiment: the traffic may have changed too."
    return Section("Before and after each router", text if switches else "One router served all of this time.", table)


def moved_section(switches: Sequence[Switch]) -> Section:
    columns: list[Column[Moved]] = [
        Column("Before", lambda row: shares_text(row.before)),
        Column("After", lambda row: shares_text(row.after)),
        Column("Decisions before", lambda row: row.n_before),
        Column("Decisions after", lambda row: row.n_after),
        Column("Change, points", lambda row: row.quality, points, is_difference=True),
    ]
    rows = [(f"{row.category}, {one.after[:8]}", row) for one in switches for row in one.moved]
    return Section("Categories that changed hands", table=table_of("Category, router", rows, columns))


def events_section(events: Sequence[RouterEvent]) -> Section:
    columns: list[Column[RouterEvent]] = [
        Column("Version", lambda one: one.version[:8]),
        Column("Event", lambda one: one.event),
        Column("Detail", lambda one: one.detail),
    ]
    rows = [(moment(one.at), one) for one in events]
    return Section("What happened to routers", table=table_of("Time (UTC)", rows, columns))


def worth_section(report: LogReport) -> Section:
    """Quality that would be lost without each expert, and what leaving it out would save."""
    title, worth = "Which expert earns its keep", report.worth
    if worth is None:
        return Section(title, report.worth_unknown and f"Not known: {report.worth_unknown}.")
    spent = {group.name: group.cost_usd for group in report.experts}
    columns: list[Column[ExpertWorth]] = [
        Column("Lost without it, points", lambda one: one.loss, points, is_difference=True),
        Column("Cost in this traffic", lambda one: spent.get(one.expert, 0.0), money),
        Column("Saved per 1,000", lambda one: one.saved_usd, money),
        Column("Points per $", lambda one: one.loss_per(one.saved_usd), points, is_difference=True),
        Column("GB freed", lambda one: one.freed_gb, "{:,.3g}".format),
        Column("Points per GB", lambda one: one.loss_per(one.freed_gb), points, is_difference=True),
    ]
    table = table_of("Expert", {one.expert: one for one in worth.experts}, columns, how=lambda one: one.unknown)
    note = (
        f"By the same {worth.n:,} graded prompts with and without the expert, weighted by this traffic's categories. "
        "The map was solved on them too, which favours the expert a little."
    )
    return Section(title, sentence(worth), table, losses_chart(worth), note)


def losses_chart(worth: CompositionWorth) -> Chart | None:
    lost = {(name, one.expert): loss.value for one in worth.experts for name, loss in one.by_category.items()}
    caption = "Quality of each category that would be lost without an expert."
    return Chart(caption, drawing.heat_map(lost, ("category", "without"), "+.0%")) if lost else None


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def shares_text(shares: Mapping[str, float]) -> str:
    """The largest shares."""
    return ", ".join(f"{name} {share:.0%}" for name, share in list(shares.items())[:3])
