"""The page of a routing report, and its findings as text."""

from __future__ import annotations

from coe.eval.certify.certificate_page import plans_section
from coe.eval.report import drawing
from coe.eval.report.numbers import billions, counted, dollars, percent, points, whole_percent
from coe.eval.report.page import Chart, Column, Figure, Page, Section, cell_of, cite, facts_of, table_of
from coe.eval.routing.budget_sections import MIN_DRAWN_QUERIES, budget_sections
from coe.eval.routing.routing_records import AgreeOutOfFold, Arm, CategoryRow, ExpertRow, OutOfFold, Report

MIN_TEST_QUERIES = 6
"""Number of test queries below which two choices are never told apart. Five that all agree have p = 0.06 in a
two-sided sign test. The bootstrap interval of so few is too narrow, and that of one is a point."""
COLLAPSED_SHARE = 0.95
"""Share of one expert at which routing is as good as off."""
MOSTLY_GENERAL, LISTED, SHOWN_CATEGORIES = 0.5, 6, 24
CATEGORY_ARMS = {
    "coe": "This router",
    "best_single": "Best single",
    "knn": "k-NN",
    "category_oracle": "Category oracle",
    "query_oracle": "Query oracle",
}
COSTS = {
    "recorded": "as recorded with the outcomes",
    "estimated": "estimated from list prices and the lengths of prompt and answer",
    "unknown": "unknown",
}


def routing_page(report: Report) -> Page:
    """Build the whole page."""
    own, gain = report.arms["coe"], report.arms["coe"].gain
    lead = cell_of(gain["best_single"], points, is_difference=report.data.n_test >= MIN_TEST_QUERIES)
    return Page(
        kind=f"Routing report, {report.data.source}",
        title=verdict(report),
        lead=report.headline,
        figures=[
            Figure("This router", cell_of(own.score, percent)),
            Figure("Against the best single", lead),
            Figure("Gap to the oracle closed", cell_of(own.gap_closed or "no gap", whole_percent)),
            Figure("Against k-NN", cell_of(gain["knn"], points)),
        ],
        picture=arms_chart(report),
        sections=[
            ways_section(report),
            experts_section(report),
            categories_section(report),
            *budget_sections(report),
            *([plans_section(report.certificate)] if report.certificate else []),
            measured_section(report),
        ],
        tone=lead.tone,
        warnings=warnings(report),
    )


def ranked_arms(report: Report) -> list[tuple[str, Arm]]:
    """Return the arms and the methods other than this router, by their labels, the best first."""
    others = [arm for kind, arm in report.methods.items() if kind != report.data.method]
    return sorted(((arm.label, arm) for arm in (*report.arms.values(), *others)), key=lambda pair: -pair[1].mean_score)


def arms_chart(report: Report) -> Chart:
    """Draw the mean score of every arm and method."""
    found = dict(ranked_arms(report))
    groups = {name: arm.group for name, arm in found.items()}
    own_first = dict(sorted(groups.items(), key=lambda pair: pair[1] != "this router"))
    scores = {name: arm.score for name, arm in found.items()}
    caption = "Mean score on the same test queries. Choices in hindsight look at the answers: a ceiling, not a choice."
    return Chart(caption, drawing.dots(scores, "mean score, with 95% interval", ".1%", own_first))


def ways_section(report: Report) -> Section:
    """Return the section on every way to choose, with its costs."""
    columns: list[Column[Arm]] = [
        Column("Mean score", lambda arm: arm.score, percent),
        Column("Minus this router", lambda arm: arm.gain.get("coe"), points, is_difference=True),
        Column("Minus best single", lambda arm: arm.gain.get("best_single"), points, is_difference=True),
        Column("Gap closed", lambda arm: arm.gap_closed, whole_percent),
        Column("Active parameters", lambda arm: arm.mean_active_params_b, billions),
        Column("Cost per 1,000 queries", lambda arm: arm.mean_cost_usd, dollars),
    ]
    table = table_of("Way to choose", ranked_arms(report), columns, own="This router", how=how_of)
    sentence = "" if report.out_of_fold is None else out_of_fold_sentence(report.out_of_fold)
    return Section("Ways to choose", sentence, table, note=ways_note(report))


def how_of(arm: Arm) -> str:
    """Describe how an arm chooses, its calls and the limits that bind it."""
    asked = f"; {arm.mean_calls:.2f} on average" if arm.group == "strategy" else ""
    return arm.how + asked + (f"; held by {', '.join(arm.binding)}" if arm.binding else "")


def out_of_fold_sentence(found: OutOfFold) -> str:
    """Describe the result on all prompts instead of the test split, beside both best single experts."""
    share = found.gap_closed
    closed = "" if share is None else f" That closes {percent(share.mean, 0)} of the gap from there."
    return (
        f"Over all {counted(found.n, 'prompt', 'prompts')}, in {found.folds} parts that were each decided by a router "
        f"fitted on the others, it scores {percent(found.coe)}: {cite(found.over_best_single, points, ' points')} "
        f"over the best single expert of the other parts, and {cite(found.over_hindsight, points)} over "
        f"{found.hindsight}, the best of all in hindsight.{closed}"
        f"{'' if found.agree is None else agree_sentence(found, found.agree)}"
    )


def agree_sentence(found: OutOfFold, agree: AgreeOutOfFold) -> str:
    """Describe the strategy's result on all prompts."""
    asked = ", ".join(f"{name} {percent(share, 0)}" for name, share in agree.asked.items() if share)
    return (
        f" The strategy agree scores {percent(agree.score)}: {cite(agree.over_best_single, points, ' points')} over "
        f"the first, {cite(agree.over_hindsight, points)} over {found.hindsight}. It asks {asked}."
    )


def ways_note(report: Report) -> str:
    """Describe how differences, costs and budgets were counted."""
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
    """Return the section on every expert alone, and the categories that each wins."""
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


def categories_section(report: Report) -> Section:
    """Return the section on stage 1, and on scores per true category."""
    stage = report.stage_one
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
    return Section("Categories", f"{sentence}.", table)


def arm_column(title: str, name: str) -> Column[CategoryRow]:
    """Return the column of an arm's mean score by category."""
    return Column(title, lambda row: row.scores[name], percent)


def measured_section(report: Report) -> Section:
    """Return the section on the data behind the figures, and the command that measures them again."""
    d = report.data
    splits = ", ".join(f"{name} {count}" for name, count in d.splits.items())
    left_out = {
        "the same text as a test query": d.n_overlap_removed,
        "no score of some expert": d.n_incomplete_removed,
    }
    one = "none has enough fit queries to be learned, so all queries are one"
    facts = {
        "Command": report.command,
        "Data": f"{d.source}, scored by {d.metric}",
        "Categories": one if d.has_one_category else "",
        "Queries": f"{d.n_fit} to fit, {d.n_test} to test (splits: {splits})",
        "Left out": ", ".join(f"{count} with {why}" for why, count in left_out.items() if count),
        "Budget": ", ".join(f"{name} at most {value}" for name, value in d.budgets.items()),
        "Fingerprints": ", ".join(f"{name} {value}" for name, value in d.fingerprints.items()),
        "Router": f"{d.router_version}, encoder {d.encoder}",
        "Seed": str(report.seed),
        "Made": f"{report.created_at}; the same numbers are in report.json",
    }
    few = f" Quality against budgets is shown from {MIN_DRAWN_QUERIES} test queries on; report.json has it."
    note = (
        "Everything that is learned or chosen saw the fit queries only; every figure is on test queries that share no "
        "text with them. Intervals are percentile bootstrap intervals over test queries; they do not cover another "
        f"draw of the fit data.{few if d.n_test < MIN_DRAWN_QUERIES and report.frontier else ''}"
    )
    return Section("How this was measured", table=facts_of(facts), note=note)


def warnings(report: Report) -> list[str]:
    """Return signs that the router has collapsed or degraded (HoME, arXiv 2408.05430; the thresholds are ours)."""
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


def verdict(report: Report) -> str:
    """Compare the router with the best single expert in one clause. A gain counts if its interval excludes zero, and
    counts as none if the interval lies within `power.difference`."""
    (low, high), told = report.arms["coe"].gain["best_single"].interval, report.power.difference
    if report.data.n_test < MIN_TEST_QUERIES:
        return "Too few queries to tell routing from the best single expert"
    if low > 0:
        return "Routing beats the best single expert"
    if high < 0:
        return "Routing does worse than the best single expert"
    if -told <= low and high <= told:
        return f"Routing is within {100 * told:.1f} points of the best single expert"
    return f"{counted(report.data.n_test, 'query', 'queries')} cannot tell routing from the best single expert"


def power_sentence(report: Report) -> str:
    """Describe which difference so many queries can show, and how many are enough; "" if the verdict is clear."""
    power, n_test = report.power, report.data.n_test
    if "cannot tell" not in verdict(report) or power.queries is None:
        return ""
    about = round(power.queries, 2 - len(str(power.queries)))
    enough = f"; for {100 * power.difference:.1f} points it takes about {about:,}"
    shown = f" So many queries show a difference of {100 * power.smallest_shown:.1f} points or more"
    return f"{shown}{enough if power.queries > n_test else ''}."


def headline(report: Report) -> str:
    """State the findings in a few sentences."""
    data, arms = report.data, report.arms
    own, single = arms["coe"], arms["best_single"]
    name = single.label[:1].lower() + single.label[1:]
    text = (
        f"{verdict(report)}: on {counted(data.n_test, 'held-out query', 'held-out queries')} over "
        f"{counted(len(data.experts), 'expert', 'experts')} it scores {percent(own.mean_score)}, the {name} "
        f"{percent(single.mean_score)}, a difference of {cite(own.gain['best_single'], points, ' points')}."
    )
    text += power_sentence(report)
    if own.gap_closed is not None:
        oracle = percent(arms["query_oracle"].mean_score)
        text += f" That closes {percent(own.gap_closed.mean, 0)} of the gap to a perfect choice per query ({oracle})."
    return text
