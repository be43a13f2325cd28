"""The page of a routing report, and its findings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.metrics.cheap_strong import CPT_LEVELS, CallOrder
from eval.metrics.intervals import Estimate
from eval.report import drawing
from eval.report.numbers import billions, counted, dollars, percent, points, whole_percent
from eval.report.page import (
    Cell,
    Chart,
    Column,
    Figure,
    Form,
    Page,
    Section,
    cell_of,
    facts_of,
    stated,
    table_of,
)
from eval.routing.routing_records import (
    Arm,
    CategoryRow,
    CheapStrong,
    DataFacts,
    ExpertRow,
    FrontierPoint,
    LostQuery,
    OutOfFold,
    Regret,
    Report,
    ThinCell,
)

FEWEST_TOLD = 6
"""Fewest test queries that can tell two choices apart: five that all agree have p = 0.06 in a two-sided sign test, but
every resample of them agrees too, so the bootstrap interval of a few is too narrow and that of one is a point."""
FEWEST_DRAWN = 200
"""Fewest test queries for quality over budgets: with fewer each point lies within some 7 points of the truth or worse,
and a larger budget seems to buy less (ours)."""
SAME_AMOUNT = 1.1
"""Ratio of the largest amount to the smallest up to which they count as the same (ours)."""
COLLAPSED_SHARE = 0.95
"""Share of one expert at which routing is as good as off."""
MOSTLY_GENERAL, LISTED, SHOWN_CATEGORIES = 0.5, 6, 24
PARTS = {
    "beyond_categories": ("Beyond categories", "one expert per category is not the best expert for each query"),
    "map": ("Map", "the map, learned on fit data and within any budget, is not the best one for these queries"),
    "classifier": ("Category or query", "the category was mistaken or fell back to general (negative: this won more)"),
}
BUDGETS: Mapping[str, tuple[str, Form, str, float]] = {
    "active_params_b": ("active parameters", billions, "mean active parameters per query (billions)", 1),
    "cost_usd": ("cost", dollars, "mean cost per 1,000 queries (USD)", 1000),
    "hosted_params_b": ("hosted parameters", billions, "parameters of all experts that serve (billions)", 1),
}
"""Budget -> its name, how an amount is written, title of the axis, unit of the axis."""
CATEGORY_ARMS = {
    "coe": "This router",
    "best_single": "Best single",
    "knn": "k-NN",
    "category_oracle": "Category oracle",
    "query_oracle": "Query oracle",
}
ORDERS = {"random": "Random", "oracle": "Oracle (hindsight)"}
COSTS = {
    "recorded": "as recorded with the outcomes",
    "estimated": "estimated from list prices and the lengths of prompt and answer",
    "unknown": "unknown",
}


def routing_page(report: Report) -> Page:
    """The page; a section without anything to show is left out."""
    gain, own = report.arms["coe"].gain, report.arms["coe"]
    is_told = report.data.n_test >= FEWEST_TOLD
    lead = cell_of(gain["best_single"], points, is_difference=is_told)
    sections = [
        ways_section(report),
        experts_section(report),
        regret_section(report.regret),
        categories_section(report),
        *(budget_section(report, budget) for budget in report.frontier if tells(report, budget)),
        *([] if report.cheap_strong is None else [calls_section(report, report.cheap_strong)]),
        thin_section(report),
        lost_section(report.lost),
        measured_section(report),
    ]
    single = report.arms["best_single"].mean_active_params_b
    size = Figure("Active parameters", Cell(billions(own.mean_active_params_b), f"best single: {billions(single)}"))
    near = Figure("Against k-NN", cell_of(gain["knn"], points))
    return Page(
        kind=f"Routing report, {report.data.source}",
        title=verdict(report),
        lead=report.headline,
        figures=[
            Figure("This router", cell_of(own.score, percent)),
            Figure("Against the best single", lead),
            Figure("Gap to the oracle closed", cell_of(own.gap_closed or "no gap", whole_percent)),
            near if own.mean_active_params_b is None else size,
        ],
        picture=arms_chart(report),
        sections=[section for section in sections if section.table is None or section.table.rows],
        tone=lead.tone,
        warnings=warnings(report),
    )


def ways(report: Report) -> dict[str, Arm]:
    """Arms and methods by their labels, the best first."""
    mark = "default" if report.data.method is None else "named"
    found = {arm.label: arm for arm in report.arms.values()}
    found |= {f"{one.label} ({mark})" if one.is_default else one.label: one for one in report.methods.values()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].mean_score))


def arms_chart(report: Report) -> Chart:
    found = ways(report)
    groups = {name: arm.group for name, arm in found.items()}
    groups = dict(sorted(groups.items(), key=lambda pair: pair[1] != "this router"))
    scores = {name: arm.score for name, arm in found.items()}
    caption = "Mean score on the same test queries. Choices in hindsight look at the answers: a ceiling, not a choice."
    return Chart(caption, drawing.dots(scores, "mean score, with 95% interval", ".1%", groups))


def ways_section(report: Report) -> Section:
    """Every way to choose, with what it costs."""
    columns: list[Column[Arm]] = [
        Column("Mean score", lambda arm: arm.score, percent),
        Column("Minus this router", lambda arm: arm.gain.get("coe"), points, is_difference=True),
        Column("Minus best single", lambda arm: arm.gain.get("best_single"), points, is_difference=True),
        Column("Gap closed", lambda arm: arm.gap_closed, whole_percent),
        Column("Active parameters", lambda arm: arm.mean_active_params_b, billions),
        Column("Cost per 1,000 queries", lambda arm: arm.mean_cost_usd, dollars),
    ]
    table = table_of("Way to choose", ways(report), columns, own="This router", how=how_of)
    sentence = "" if report.out_of_fold is None else out_of_fold_sentence(report.out_of_fold)
    return Section("Ways to choose", sentence, table, note=ways_note(report))


def how_of(arm: Arm) -> str:
    asked = f"; {arm.mean_calls:.2f} on average" if arm.group == "strategy" else ""
    return arm.how + asked + (f"; held by {', '.join(arm.binding)}" if arm.binding else "")


def out_of_fold_sentence(found: OutOfFold) -> str:
    """All prompts instead of the test split, beside both best single experts."""
    share = found.gap_closed
    closed = "" if share is None else f" That closes {percent(share.mean, 0)} of the gap from there."
    return (
        f"Over all {counted(found.n, 'prompt', 'prompts')}, in {found.folds} parts that were each decided by a router "
        f"fitted on the others, it scores {percent(found.coe)}: {stated(found.over_best_single, points, ' points')} "
        f"over the best single expert of the other parts, and {stated(found.over_hindsight, points)} over "
        f"{found.hindsight}, the best of all in hindsight.{closed}"
    )


def ways_note(report: Report) -> str:
    """How differences, costs and budgets were counted."""
    facts = report.data
    text = f"Differences are averaged over the same resampled queries. Cost is {COSTS[facts.cost]}"
    if facts.cost_filled:
        text += f"; {percent(facts.cost_filled)} of the costs are unknown and count as the mean of their expert"
    unpriced = sum(row.mean_cost_usd is None for row in report.experts)
    if facts.cost != "unknown" and unpriced:
        text += f"; it is unknown of {unpriced} of the {len(facts.experts)} experts, and of every choice that takes one"
    if facts.budgets:
        text += (
            ". This router, the methods and what says so keep to the budget on average, each expert counted with its "
            "mean on the fit queries; the table shows what the test queries used. The others have no budget"
        )
    return f"{text}."


def experts_section(report: Report) -> Section:
    """Every expert alone, and where each wins."""
    columns: list[Column[ExpertRow]] = [
        Column("Mean score", lambda one: one.score, percent),
        Column("On fit data", lambda one: one.fit_score, percent),
        Column("Active parameters", lambda one: one.active_params_b, billions),
        Column("Cost per 1,000 queries", lambda one: one.mean_cost_usd, dollars),
        Column("Share of this router", lambda one: one.share, percent),
    ]
    gains = {
        (row.category, expert): 100 * (score - row.scores["best_single"])
        for row in report.categories[:SHOWN_CATEGORIES]
        for expert, score in row.experts.items()
    }
    single = report.arms["best_single"].label
    caption = f"Points above \u201c{single}\u201d when one expert serves every test query of a category."
    chart = Chart(caption, drawing.heat_map(gains, ("true category", "expert"), "+.0f"))
    return Section("Experts", "", table_of("Expert", {one.expert: one for one in report.experts}, columns), chart)


def regret_section(regret: Regret) -> Section:
    """The distance to the best expert for every query, in parts."""
    named = {name: (regret.parts[key], how) for key, (name, how) in PARTS.items()}
    columns: list[Column[tuple[Estimate, str]]] = [Column("Points", lambda pair: pair[0], points)]
    total = {"Total": (regret.total, "query oracle minus this router")}
    largest = max(named, key=lambda name: named[name][0].mean)
    lost, why = named[largest]
    sentence = (
        f"{stated(regret.total, points, ' points')} lie between this router and the best expert for every query. "
        f"The largest part, {points(lost.mean)}, is \u201c{largest.lower()}\u201d: {why}."
    )
    if regret.total.mean <= 0:
        sentence = "Nothing: every query got an expert that answers it as well as the best one."
    table = table_of("Part", named | total, columns, own="Total", how=lambda pair: pair[1])
    return Section("Where the rest is lost", sentence, table)


def categories_section(report: Report) -> Section:
    """Stage 1, and scores per true category."""
    stage, found = report.stage_one, report.confusion
    sentence = (
        f"The true category is predicted for {percent(stage.accuracy)} of the queries, out of "
        f"{counted(stage.n_categories, 'category', 'categories')}, with a confidence that is wrong by "
        f"{percent(stage.calibration_error)} on average. {percent(1 - stage.coverage)} were too uncertain and went to "
        "general"
    )
    if stage.error_when_sure is not None:
        sentence += f"; of the others {percent(stage.error_when_sure)} were misclassified"
    columns: list[Column[CategoryRow]] = [
        Column("Test queries", lambda row: row.n_test),
        Column("Expert in the map", lambda row: row.expert),
        Column("Predicted right", lambda row: row.accuracy, whole_percent),
        Column("To general", lambda row: row.fallback_share, whole_percent),
        *(arm_column(title, name) for name, title in CATEGORY_ARMS.items()),
    ]
    table = table_of("Category", {row.category: row for row in report.categories}, columns)
    cells = {
        (true, likely): count / sum(counts)
        for true, counts in zip(found.categories, found.counts, strict=True)
        for likely, count in zip(found.categories, counts, strict=True)
        if sum(counts)
    }
    caption = "Rows are true categories, columns the most likely ones: shares of the row."
    chart = Chart(caption, drawing.heat_map(cells, ("true category", "most likely category"), ".0%", 1))
    return Section("Categories", f"{sentence}.", table, chart if len(found.categories) > 1 else None)


def arm_column(title: str, name: str) -> Column[CategoryRow]:
    return Column(title, lambda row: row.scores[name], percent)


def tells(report: Report, budget: str) -> bool:
    """Returns True where there are enough test queries for quality over a budget, and points use different amounts."""
    amounts = [point.amount for curve in report.frontier[budget].values() for point in curve]
    return report.data.n_test >= FEWEST_DRAWN and max(amounts) > SAME_AMOUNT * min(amounts)


def budget_section(report: Report, budget: str) -> Section:
    """Quality against the amount used, beside the fixed mixture."""
    name, form, title, unit = BUDGETS[budget]
    coe, mixture = report.frontier[budget]["coe"], report.frontier[budget]["best_mixture"]
    both = dict(zip((form(point.budget) for point in coe), zip(coe, mixture, strict=True), strict=True))
    columns: list[Column[tuple[FrontierPoint, FrontierPoint]]] = [
        Column("This router", lambda pair: pair[0].score, percent),
        Column("Used", lambda pair: pair[0].amount, form),
        Column("Minus mixture", lambda pair: pair[0].gain, points, is_difference=True),
        Column("Best fixed mixture", lambda pair: pair[1].score, percent),
        Column("Mixture used", lambda pair: pair[1].amount, form),
    ]
    rows = [
        {"group": label, "x": unit * at.amount, "y": at.mean_score, "low": at.interval[0], "high": at.interval[1]}
        for label, curve in (("This router", coe), ("Best fixed mixture", mixture))
        for at in curve
    ]
    caption = "Mean score under a rising budget, with 95% intervals. Up and to the left is better."
    chart = Chart(caption, drawing.lines(rows, (title, "mean score"), ".0%"))
    sentence = f"{gain_sentence(coe, form)} {single_sentence(report, budget, form)}"
    note = (
        "The fixed mixture is a coin between two experts, or the best single expert that fits in memory; in the "
        "difference it may spend the budget, or what this router used if that is more."
    )
    return Section(f"Quality against {name}", sentence, table_of("Budget", both, columns), chart, note)


def gain_sentence(coe: Sequence[FrontierPoint], form: Form) -> str:
    """The largest certain gain over the mixture."""
    known = [(point, point.gain) for point in coe if point.gain is not None]
    best, gain = max(known, key=lambda pair: pair[1].interval[0])
    if gain.interval[0] <= 0:
        return "This router is nowhere clearly above the best fixed mixture of experts."
    over = stated(gain, points, " points")
    return f"This router is furthest above the best fixed mixture of experts at {form(best.amount)}, by {over}."


def single_sentence(report: Report, budget: str, form: Form) -> str:
    """The amount that is needed to be as good as the best single expert."""
    single, curve = report.arms["best_single"], report.frontier[budget]["coe"]
    target = f"The best single expert's {percent(single.mean_score)}"
    reaching = [point.amount for point in curve if point.mean_score >= single.mean_score - 1e-9]
    if not reaching:
        return f"{target} is not reached at any budget; the most is {percent(max(p.mean_score for p in curve))}."
    return f"{target} is reached with {form(min(reaching))}."


def calls_section(report: Report, pair: CheapStrong) -> Section:
    """The use of strong calls between two experts."""
    labels = {name: ORDERS.get(name) or report.methods[name].label for name in pair.orders}
    orders = {labels[name]: order for name, order in pair.orders.items()}
    columns: list[Column[CallOrder]] = [
        Column("APGR", lambda order: order.apgr, "{:.3f}".format),
        *(share_column(level) for level in CPT_LEVELS),
    ]
    rows = [
        {"group": name, "x": 100 * share, "y": score}
        for name, order in orders.items()
        for share, score in zip(order.share, order.mean_score, strict=True)
    ]
    sentence = (
        f"{pair.weak} alone scores {percent(pair.weak_score)}, {pair.strong} {percent(pair.strong_score)}, and the "
        f"better of the two for every query {percent(pair.oracle_score)}."
    )
    caption = "Mean score as more queries go to the strong expert, those of largest predicted gain first."
    chart = Chart(caption, drawing.lines(rows, ("queries sent to the strong expert (%)", "mean score"), ".0%"))
    note = (
        "APGR is the share of the gap between the two that is recovered on average over all shares of strong calls; "
        "CPT is the least share of strong calls that recovers so much of it."
    )
    return Section("Cheap and strong", sentence, table_of("Order of strong calls", orders, columns), chart, note)


def share_column(level: int) -> Column[CallOrder]:
    return Column(f"CPT({level}%)", lambda order: order.cpt.get(level), percent)


def thin_section(report: Report) -> Section:
    columns: list[Column[ThinCell]] = [
        Column("Graded answers", lambda cell: cell.count),
        Column("Missing", lambda cell: cell.missing),
    ]
    table = table_of("Category and expert", {f"{c.category}, {c.expert}": c for c in report.thin_cells}, columns)
    cells = counted(report.n_thin_cells, "pair has", "pairs have")
    return Section("What to grade first", f"{cells} too few graded answers for the map to rely on.", table)


def lost_section(lost: Sequence[LostQuery]) -> Section:
    columns: list[Column[LostQuery]] = [
        Column("Query", lambda one: one.excerpt),
        Column("Category", category_text),
        Column("Chosen", lambda one: f"{one.chosen}: {percent(one.chosen_score, 0)}"),
        Column("Best", lambda one: f"{one.best}: {percent(one.best_score, 0)}"),
    ]
    sentence = "Of equal losses, first those that most experts answer well."
    return Section(
        "Queries lost by the most", sentence, table_of("Prompt", {one.prompt_id: one for one in lost}, columns)
    )


def category_text(one: LostQuery) -> str:
    return one.category if one.likely_category == one.category else f"{one.category}, taken for {one.likely_category}"


def measured_section(report: Report) -> Section:
    """The data behind the figures, and the command that measures them again."""
    d = report.data
    one = "; no category there has enough fit queries to be learned, so all queries are one"
    facts = {
        "Command": report.command,
        "Data": f"{d.source}, scored by {d.metric}",
        "Categories": f"column \u201c{d.category_column}\u201d{one if d.has_one_category else ''}",
        "Experts": ", ".join(d.experts),
        "Queries": queries_text(d),
        "Budget": ", ".join(f"{name} at most {value}" for name, value in d.budgets.items()),
        "Fingerprints": ", ".join(f"{name} {value}" for name, value in d.fingerprints.items()),
        "Router": f"{d.router_version}, encoder {d.encoder}",
        "Seed": str(report.seed),
        "Made": f"{report.created_at}; the same numbers are in report.json",
    }
    few = f"Quality against budgets is shown from {FEWEST_DRAWN} test queries on; report.json has it."
    note = (
        "Everything that is learned or chosen saw the fit queries only; every figure is on test queries that share no "
        "text with them. Intervals are percentile bootstrap intervals over test queries; they do not cover another "
        f"draw of the fit data. {few if d.n_test < FEWEST_DRAWN and report.frontier else ''}"
    )
    return Section("How this was measured", "", facts_of(facts), note=note.rstrip())


def queries_text(d: DataFacts) -> str:
    splits = ", ".join(f"{name} {count}" for name, count in d.splits.items())
    text = f"{d.n_fit} to fit, {d.n_test} to test (splits: {splits})"
    if d.n_overlap_removed:
        text += f"; {d.n_overlap_removed} fit queries left out because the test set holds the same text"
    if d.n_incomplete_removed:
        text += f"; {d.n_incomplete_removed} left out because some expert has no score there"
    return text


def warnings(report: Report) -> list[str]:
    """Signs that the router has collapsed or degraded (HoME, arXiv 2408.05430; the figures are ours)."""
    top = max(report.experts, key=lambda row: row.share)
    rows = [row for row in report.categories if row.fallback_share > MOSTLY_GENERAL]
    found = []
    if top.share >= COLLAPSED_SHARE:
        found.append(f"{top.expert} serves {percent(top.share)} of the queries: routing is as good as off.")
    if rows:
        shown = [f"{row.category} ({percent(row.fallback_share, 0)} of {row.n_test})" for row in rows[:LISTED]]
        more = f" and {len(rows) - LISTED} more" if len(rows) > LISTED else ""
        found.append(f"Most queries are too uncertain and go to general in {', '.join(shown)}{more}.")
    return found


def is_within(gain: Estimate, difference: float) -> bool:
    return max(map(abs, gain.interval)) <= difference


def verdict(report: Report) -> str:
    """One clause on the best single expert; a gain counts when its interval excludes zero, and counts as none when the
    interval lies within `power.difference`."""
    gain, n_test, told = report.arms["coe"].gain["best_single"], report.data.n_test, report.power.difference
    if n_test < FEWEST_TOLD:
        return "Too few queries to tell routing from the best single expert"
    if gain.interval[0] > 0:
        return "Routing beats the best single expert"
    if gain.interval[1] < 0:
        return "Routing does worse than the best single expert"
    if is_within(gain, told):
        return f"Routing is within {100 * told:.1f} points of the best single expert"
    return f"{counted(n_test, 'query', 'queries')} cannot tell routing from the best single expert"


def power_sentence(report: Report) -> str:
    """The difference that so many queries can show, and how many are enough; nothing where many queries made the
    difference certain, or where too few queries, or none that differ, do not tell."""
    gain, power, n_test = report.arms["coe"].gain["best_single"], report.power, report.data.n_test
    is_told = gain.interval[0] > 0 or gain.interval[1] < 0 or is_within(gain, power.difference)
    if n_test < FEWEST_TOLD or power.queries is None or (is_told and n_test >= min(power.queries, FEWEST_DRAWN)):
        return ""
    shown = f" So many queries show a difference of {100 * power.smallest_shown:.1f} points or more"
    if power.queries <= n_test:
        return f"{shown}."
    return f"{shown}; for {100 * power.difference:.1f} points it takes about {rounded_up(power.queries):,}."


def rounded_up(count: int) -> int:
    """To two digits: an estimate has no more."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // unit) * unit


def headline(report: Report) -> str:
    """The findings in a few sentences."""
    data, arms = report.data, report.arms
    own, single = arms["coe"], arms["best_single"]
    name = single.label[:1].lower() + single.label[1:]
    text = (
        f"{verdict(report)}: on {counted(data.n_test, 'held-out query', 'held-out queries')} over "
        f"{counted(len(data.experts), 'expert', 'experts')} it scores {percent(own.mean_score)}, the {name} "
        f"{percent(single.mean_score)}, a difference of {stated(own.gain['best_single'], points, ' points')}."
    )
    text += power_sentence(report)
    if own.gap_closed is not None:
        oracle = percent(arms["query_oracle"].mean_score)
        text += f" That closes {percent(own.gap_closed.mean, 0)} of the gap to a perfect choice per query ({oracle})."
    near = "k-NN, which keeps no budget," if data.budgets else "k-NN"
    text += f" Against {near} it is {stated(own.gain['knn'], points, ' points')}."
    if "best_mixture" in own.gain:
        mixed = stated(own.gain["best_mixture"], points, " points")
        text += f" Against the best fixed mixture within the budget it is {mixed}."
    return text
