"""The sections of a traffic report on what learning and each expert are worth, and on how the traffic has moved."""

from __future__ import annotations

from functools import partial

from base.money import money
from eval.log.traffic_records import LogReport
from eval.log.traffic_words import moment
from eval.report.numbers import cell_of, percent, points
from eval.report.page import Block, Columns, Note, Row, Section, Table, table_of
from router.types import Metric
from training.category_mix import mix_sentence
from training.expert_worth import CompositionWorth, ExpertWorth, sentence
from training.loop_worth import LoopWorth, loop_sentences


def loop_section(loop: LoopWorth) -> Section:
    """Section on what the routers of the last 30 days changed, what that is worth, and what exploring cost."""
    rows = [
        Row(
            moment(step.at), [step.version[:8], "; ".join(f"{c}: {move}" for c, move in step.changes.items()) or "none"]
        )
        for step in loop.steps
    ]
    texts = ["Router", "Categories that changed hands"]
    note = (
        f"Since {moment(loop.since)} UTC. The worth of learning is the reward of the live router less that of the one "
        "that was live then, on the same decisions since the map last changed: doubly robust, by the logged "
        "probabilities, on the half of the questions that no router learned from. The cost of exploring is what the "
        "planned experts would have earned less what was earned. Probes of coe itself count for nothing."
    )
    table = [Table(["Live since (UTC)", *texts], rows, texts=texts)] if rows else []
    return Section("loop", "What learning was worth", [*loop_sentences(loop), *table, Note(note)])


def mix_section(report: LogReport) -> Section:
    """Distance of the traffic's mix of categories from the labelled queries that stage 1 learned from."""
    mix = report.mix
    if mix is None:
        return Section("mix", "How far the traffic has moved", [f"Not known: {report.mix_unknown}."])
    columns: Columns[Metric] = {
        "Labelled": lambda name, _: percent(mix.labelled[name]),
        "Traffic": lambda _, share: cell_of(share),
    }
    note = (
        "Shares by expectation maximisation over stage 1's probabilities of the newest queries that it is sure of, if "
        "queries of a category are worded as the labelled ones are. Intervals resample keys, or questions where fewer "
        "than five keys ask. `coe retrain` lets the prior of stage 1 follow a mix whose distance is surely above 0."
    )
    table = table_of("Category", mix.traffic, columns)
    sentence = mix_sentence(mix.moved, is_followed=mix.is_followed)
    return Section("mix", "How far the traffic has moved", [sentence, table, Note(note)])


def worth_section(report: LogReport) -> Section:
    """Quality that would be lost without each expert, and what leaving it out would save."""
    worth = report.worth
    blocks: list[Block] = [f"Not known: {report.worth_unknown}."]
    if worth is not None:
        spent = {group.name: group.cost_usd for group in report.experts}
        blocks = [sentence(worth), worth_table(worth, spent), categories_table(worth), Note(how_measured(worth))]
    return Section("worth", "Which expert earns its keep", blocks)


def worth_table(worth: CompositionWorth, spent: dict[str, float]) -> Table:
    columns: Columns[ExpertWorth] = {
        "Lost without it, points": lambda _, one: points_cell(one.loss) if one.loss else one.unknown,
        "Cost in this traffic": lambda name, _: money(spent.get(name, 0.0)),
        "Saved per 1,000": lambda _, one: money(one.saved_usd),
        "Points per $": lambda _, one: points_cell(one.loss_per(one.saved_usd)),
        "GB freed": lambda _, one: one.freed,
        "Points per GB": lambda _, one: points_cell(one.loss_per(one.freed_gb)),
    }
    return table_of("Expert", {one.expert: one for one in worth.experts}, columns)


def categories_table(worth: CompositionWorth) -> Table:
    """The same by category, the largest losses first."""
    found = [(metric, name, one.expert) for one in worth.experts for name, metric in one.by_category.items()]
    found.sort(key=lambda row: -row[0].value)
    rows = [Row(name, [expert, points_cell(metric), f"{metric.n:,}"]) for metric, name, expert in found]
    return Table(["Category", "Without", "Lost, points", "Graded prompts"], rows, texts=["Without"])


points_cell = partial(cell_of, words=points, is_difference=True)


def how_measured(worth: CompositionWorth) -> str:
    return (
        "Each expert in turn is left out of the map of the policy `default`, and the map is solved again; the two maps "
        f"are scored on the same {worth.n:,} graded prompts, weighted by this traffic's categories, with paired "
        "bootstrap intervals at 95%. The map was solved on these prompts too, which favours the expert a little. "
        "Saved is the list price of 1,000 queries with it less that without it; memory counts two bytes a parameter, "
        "and a base only if no other expert shares it."
    )
