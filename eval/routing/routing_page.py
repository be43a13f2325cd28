"""The page of a routing report: its sections, each a few sentences, tables and charts of the record."""

from __future__ import annotations

from collections.abc import Mapping

from eval.report import charts
from eval.report.charts import ACCENT, EXPERT, HINDSIGHT, INK, ROW_HEIGHT, SOFT, SQUARE, VIOLET, Look
from eval.report.numbers import (
    billions,
    counted,
    dollars,
    microseconds,
    number,
    percent,
    percent_cell,
    percent_range,
    points,
    points_range,
    seconds,
    tone,
)
from eval.report.page import (
    Block,
    Cell,
    Chart,
    Command,
    Facts,
    Figure,
    Fold,
    Note,
    Page,
    Quotes,
    Row,
    Section,
    Spec,
    Table,
)
from eval.robustness.flip_records import RobustnessRecord
from eval.routing.budget_section import ROLE_OF_ARM, ROLES, budget_section, gain_cell
from eval.routing.routing_records import Arm, CheapStrong, Diagnostics, LostQuery, Report
from eval.routing.routing_words import (
    CATEGORY_CURVE,
    FEWEST_TOLD,
    ORDER_NAMES,
    PART_MEANING,
    PART_NAMES,
    call_label,
    diagnosis,
    leading_method,
    regret_sentence,
    shown_orders,
    verdict,
)
from router.types import Metric

MAX_CATEGORIES = 24
METHOD_LOOKS = (Look(ACCENT), Look(EXPERT), Look(VIOLET))
ORDER_LOOKS = {"random": Look(SOFT), "oracle": Look(HINDSIGHT)}
GAP_LEVELS = (50, 80)
COST_WORDS = {
    "recorded": "as recorded with the outcomes",
    "estimated": "estimated from list prices and the lengths of prompt and answer",
    "unknown": "unknown",
}


def routing_page(report: Report) -> Page:
    """The page; a section without anything to show is left out."""
    found = [
        scores_section(report),
        regret_section(report),
        categories_section(report),
        budget_section(report),
        None if report.cheap_strong is None else calls_section(report, report.cheap_strong),
        certainty_section(report) if report.calibration else None,
        None if report.robustness is None else stability_section(report.robustness),
        None if report.diagnostics is None else diagnostics_section(report.diagnostics),
        lost_section(report.lost) if report.lost else None,
        measured_section(report),
    ]
    page = Page(
        kind=f"Routing report, {report.data.source}",
        title=verdict(report.gain["best_single"], report.data.n_test, report.power),
        lead=report.headline,
        figures=figures(report),
        sections=[section for section in found if section is not None],
        first={},
    )
    return Page(**{**vars(page), "first": first_charts(report, page.charts)})


def first_charts(report: Report, drawn: Mapping[str, object]) -> dict[str, str]:
    """Scores, what quality costs (or what is known instead), and where the rest is lost: ids with titles."""
    own = report.arms["coe"]
    unknown = {"chart-size": own.mean_active_params_b is None, "chart-cost": own.mean_cost_usd is None}
    costs = ("chart-frontier-active_params_b", "chart-frontier-cost_usd", "chart-size", "chart-cost")
    titles = {
        "chart-calls": "What strong calls buy",
        **dict.fromkeys(costs, "What quality costs"),
        "chart-categories": "Where it wins and loses",
    }
    second = next(name for name in titles if name in drawn and not unknown.get(name))
    return {
        "chart-arms": "How each way of choosing scores",
        second: titles[second],
        "chart-regret": "Where the rest is lost",
    }


def figures(report: Report) -> list[Figure]:
    own, gain, knn = report.arms["coe"], report.gain["best_single"], report.gain["knn"]
    shown = tone(gain.interval) if report.data.n_test >= FEWEST_TOLD else ""
    gap = "no gap" if report.gap_closed is None else percent(report.gap_closed, 0)
    found = [
        Figure("This router", percent(own.mean_score), percent_range(own.interval)),
        Figure("Against the best single", f"{points(gain.mean)} pts", points_range(gain.interval), shown),
        Figure("Gap to the oracle closed", gap, percent_cell(None, report.gap_closed_interval, 0).interval),
    ]
    if own.mean_active_params_b is None:
        return [*found, Figure("Against k-NN", f"{points(knn.mean)} pts", points_range(knn.interval))]
    single = billions(report.arms["best_single"].mean_active_params_b)
    return [*found, Figure("Active parameters", billions(own.mean_active_params_b), f"best single: {single}")]


def scores_section(report: Report) -> Section:
    """Reference arms, and every method beside them."""
    tested = "same test query" if report.data.n_test == 1 else f"same {report.data.n_test:,} test queries"
    caption = (
        f"Mean score on the {tested}, with 95% bootstrap intervals over queries. What has the hindsight colour looks "
        "at the answers: a ceiling, not a choice that anyone can make."
    )
    blocks: list[Block] = [
        Chart("chart-arms", arms_chart(report), caption),
        arms_table(report),
        Note(arms_note(report)),
    ]
    if report.methods:
        is_named = report.data.method is not None
        chosen = "The default was chosen without the test queries."
        blocks += [
            methods_table(report),
            method_costs_table(report),
            Note(
                f"{'This router is of the kind that the command names.' if is_named else chosen} Deciding is timed "
                "after the embedding. The calibration error compares the predicted score of the chosen expert with the "
                "real one."
            ),
        ]
    return Section("scores", "Arms and methods", blocks)


def arms_chart(report: Report) -> Spec:
    found: list[tuple[Arm, str]] = [(arm, ROLE_OF_ARM.get(name, "reference")) for name, arm in report.arms.items()]
    found += [(method, "method") for method in report.methods.values()]
    rows: list[Spec] = [
        {
            "name": arm.label,
            "group": role,
            "score": 100 * arm.mean_score,
            "low": 100 * arm.interval[0],
            "high": 100 * arm.interval[1],
            "text": percent(arm.mean_score),
            "how": arm.how,
        }
        for arm, role in sorted(found, key=lambda pair: -pair[0].mean_score)
    ]
    looks = {role: look for role, look in ROLES.items() if any(row["group"] == role for row in rows)}
    return charts.dot_rows(rows, "mean score (%), with 95% interval", looks, has_labels=True)


def arms_table(report: Report) -> Table:
    columns = ["Arm", "Mean score", "95% interval", "Router minus arm", "Active parameters", "Cost per 1,000 queries"]
    ordered = sorted(report.arms.items(), key=lambda pair: -pair[1].mean_score)
    rows = [
        Row(
            arm.label,
            [
                percent(arm.mean_score),
                percent_range(arm.interval),
                gain_cell(report.gain.get(name)),
                billions(arm.mean_active_params_b),
                dollars(arm.mean_cost_usd),
            ],
            arm.how,
            is_own=name == "coe",
        )
        for name, arm in ordered
    ]
    return Table(columns, rows, "Reference arms")


def arms_note(report: Report) -> str:
    """How differences and costs were counted."""
    facts = report.data
    text = (
        "Differences are paired: both arms are averaged over the same resampled queries. Cost is "
        f"{COST_WORDS[facts.cost]}"
    )
    if facts.cost_filled:
        text += f"; {percent(facts.cost_filled)} of the costs are unknown and count as the mean of their expert"
    unpriced = sum(row.mean_cost_usd is None for row in report.experts)
    if facts.cost != "unknown" and unpriced:
        text += (
            f"; it is unknown of {unpriced} of the {len(facts.experts)} experts, and of every choice that may take one "
            "of them"
        )
    if not facts.budgets:
        return f"{text}."
    return (
        f"{text}. This router, the methods and the arms that say so were chosen to keep to the budget on average, each "
        "expert counted with its mean on the fit queries; the last columns show what was used on the test queries. The "
        "others were chosen without a budget."
    )


def methods_table(report: Report) -> Table:
    mark = "default" if report.data.method is None else "named"
    columns = ["Method", "Mean score", "Gap closed", "Minus best single", "Minus map on true labels", "Minus k-NN"]
    rows = [
        Row(
            f"{method.label} ({mark})" if method.is_default else method.label,
            [
                percent_cell(method.mean_score, method.interval),
                percent_cell(method.gap_closed, method.gap_closed_interval, 0),
                *(gain_cell(method.gain[against]) for against in ("best_single", "map_true", "knn", "coe")),
            ],
            method.how,
            method.is_default,
        )
        for method in sorted(report.methods.values(), key=lambda method: -method.mean_score)
    ]
    caption = "Methods, each fitted on the fit queries: mean score, and points above other choices on the same queries"
    return Table([*columns, "Minus this router"], rows, caption, is_wide=True)


def method_costs_table(report: Report) -> Table:
    columns = ["Method", "On validation", "Fit", "Decide one query", "Active parameters", "Cost per 1,000"]
    rows = [
        Row(
            method.label,
            [
                percent(method.valid_score),
                seconds(method.fit_s),
                microseconds(method.decide_us),
                billions(method.mean_active_params_b),
                dollars(method.mean_cost_usd),
                percent(report.calibration[name].ece) if name in report.calibration else "",
                percent(report.aiq.get(name)),
                percent(report.router_arena.get(name)),
            ],
            is_own=method.is_default,
        )
        for name, method in sorted(report.methods.items(), key=lambda pair: -pair[1].mean_score)
    ]
    columns += ["Calibration error", "AIQ", "RouterArena"]
    return Table(columns, rows, "What the methods cost", is_wide=True)


def regret_section(report: Report) -> Section:
    """Where the distance to the best expert for every query was lost."""
    regret = report.regret
    rows = [
        Row(PART_NAMES[name], [PART_MEANING[name], points(part.mean), points_range(part.interval)])
        for name, part in regret.parts.items()
    ]
    oracle, served = (percent(regret.values[name]) for name in ("query_oracle", "served"))
    total = [
        f"query oracle ({oracle}) minus what was served ({served})",
        points(regret.total.mean),
        points_range(regret.total.interval),
    ]
    caption = (
        "The distance from this router to the best expert for every query, in four parts that sum to it exactly. A bar "
        "to the left of zero means that this step won something."
    )
    table = Table(
        ["Part", "Means", "Points", "95% interval"], [*rows, Row("Total", total, is_own=True)], texts=["Means"]
    )
    chart = Chart("chart-regret", regret_chart(report), caption)
    return Section("regret", "Regret accounting", [regret_sentence(regret), chart, table])


def regret_chart(report: Report) -> Spec:
    """Points lost in each part, with intervals."""
    rows: list[Spec] = [
        {
            "name": PART_NAMES[name],
            "loss": 100 * part.mean,
            "low": 100 * part.interval[0],
            "high": 100 * part.interval[1],
            "text": points(part.mean).lstrip("+"),
        }
        for name, part in report.regret.parts.items()
    ]
    alt = charts.altair()
    base = charts.data(rows).encode(y=charts.row_axis(rows))
    x = alt.X("loss:Q", title="points lost (negative: won), with 95% interval", scale=alt.Scale(padding=30))
    bars = base.mark_bar(color=ACCENT, opacity=0.85, height=18).encode(x=x)
    ranges = base.mark_rule(strokeWidth=2, color=INK).encode(x="low:Q", x2="high:Q")
    labels = base.mark_text(align="left", dx=8, fontSize=13, color=INK).encode(x="high:Q", text="text:N")
    return charts.finished((bars + ranges + labels).properties(height=alt.Step(ROW_HEIGHT + 6)))


def categories_section(report: Report) -> Section:
    """Stage 1, and scores and regret per true category."""
    stage, rows = report.stage_one, report.categories
    text = (
        f"The true category is predicted for {percent(stage.accuracy)} of the queries, out of "
        f"{counted(stage.n_categories, 'category', 'categories')}. {percent(1 - stage.coverage)} were too uncertain "
        "and went to general"
    )
    if stage.error_when_sure is not None:
        text += f"; of the others {percent(stage.error_when_sure)} were misclassified"
    largest = f" (the {MAX_CATEGORIES} largest; the table has all)" if len(rows) > MAX_CATEGORIES else ""
    caption = (
        f"Mean score per true category, with the number of test queries in brackets{largest}. Small categories are "
        "noisy."
    )
    count = f"{'all ' if len(rows) > 1 else ''}{counted(len(rows), 'category', 'categories')}"
    is_open = len(rows) <= MAX_CATEGORIES
    blocks: list[Block] = [
        f"{text}.",
        Chart("chart-categories", categories_chart(report), caption),
        Fold(f"Scores of {count}", [category_scores_table(report)], is_open),
        Fold("Regret per category, in points", [category_regret_table(report)], is_open),
    ]
    return Section("categories", "By category", blocks)


def categories_chart(report: Report) -> Spec:
    """Per true category: the best single expert, this router and the category oracle; the largest categories only."""
    single = report.arms["best_single"].label
    looks = {
        "this router": Look(ACCENT),
        single: Look(SOFT, "diamond"),
        "Category oracle": Look(HINDSIGHT, "triangle-up"),
    }
    named = dict(zip(("coe", "best_single", "category_oracle"), looks, strict=True))
    dots: list[Spec] = []
    spans: list[Spec] = []
    for row in report.categories[:MAX_CATEGORIES]:
        name = f"{row.category} ({row.n_test})"
        scores = {arm: 100 * row.scores[arm] for arm in named}
        spans.append({"name": name, "low": min(scores.values()), "high": max(scores.values())})
        dots += [
            {"name": name, "group": named[arm], "score": score, "text": f"{score:.1f}%"}
            for arm, score in scores.items()
        ]
    return charts.dot_rows(dots, "mean score (%)", looks, spans=spans)


def category_scores_table(report: Report) -> Table:
    columns = ["Category", "Test queries", "Expert in the map", "Predicted right", "To general", "This router"]
    arms = ("coe", "best_single", "knn", "category_oracle", "query_oracle")
    rows = [
        Row(
            row.category,
            [
                str(row.n_test),
                row.expert,
                percent(row.accuracy, 0),
                percent(row.fallback_share, 0),
                *(percent(row.scores[arm]) for arm in arms),
            ],
        )
        for row in report.categories
    ]
    columns += ["Best single", "k-NN", "Category oracle", "Query oracle"]
    return Table(columns, rows, texts=["Expert in the map"], is_wide=True)


def category_regret_table(report: Report) -> Table:
    rows = [
        Row(
            row.category,
            [
                *(points(row.parts[name].mean) for name in PART_NAMES),
                points(row.total.mean),
                points_range(row.total.interval),
            ],
        )
        for row in report.regret.by_category
    ]
    return Table(["Category", *PART_NAMES.values(), "Total", "95% interval"], rows)


def calls_section(report: Report, pair: CheapStrong) -> Section:
    """How well strong calls are spent between two experts."""
    lead = leading_method(report)
    rows = []
    for name, order in pair.orders.items():
        apgr = "no gap" if order.apgr is None else number(order.apgr, 3)
        ends = order.apgr_interval
        cells = [Cell(apgr, "" if ends is None else f"{number(ends[0], 3)} to {number(ends[1], 3)}")]
        cells += [percent_cell(order.cpt.get(level), order.cpt_interval.get(level)) for level in GAP_LEVELS]
        rows.append(Row(call_label(report, name), cells, is_own=name == lead))
    text = (
        f"{pair.weak} alone scores {percent(pair.weak_score)}, {pair.strong} {percent(pair.strong_score)}, and the "
        f"better of the two for every query {percent(pair.oracle_score)}. APGR is the share of the gap between them "
        "that is recovered on average over all shares of strong calls; CPT is the least share of strong calls that "
        "recovers so much of it."
    )
    caption = (
        "Mean score as more queries go to the strong expert, those of largest predicted gain first. Random calls rise "
        "along the straight line."
    )
    chart = Chart("chart-calls", calls_chart(report, pair), caption)
    return Section("calls", "Cheap and strong", [text, chart, Table(["Order", "APGR", "CPT(50%)", "CPT(80%)"], rows)])


def calls_chart(report: Report, pair: CheapStrong) -> Spec:
    """Score over the share of strong calls; the rules are 50% and 80% of the gap between the two experts."""
    names = shown_orders(report, pair)
    methods = [name for name in names if name not in ORDER_NAMES]
    look_of = {**ORDER_LOOKS, **dict(zip(methods, METHOD_LOOKS, strict=False))}
    rows: list[Spec] = [
        {"group": call_label(report, name), "share": 100 * share, "score": 100 * score}
        for name in names
        for share, score in zip(pair.orders[name].share, pair.orders[name].mean_score, strict=True)
    ]
    gap = pair.strong_score - pair.weak_score
    rules: list[Spec] = [
        {"score": 100 * (pair.weak_score + level / 100 * gap), "share": 100, "text": f"{level}% of the gap"}
        for level in GAP_LEVELS
        if gap > 0
    ]
    alt = charts.altair()
    levels = charts.data(rules)
    marks = levels.mark_rule(strokeDash=[3, 4], color=SOFT).encode(y="score:Q")
    texts = levels.mark_text(align="right", dy=-8, dx=-4, fontSize=12, color=SOFT)
    x = alt.X("share:Q", title="queries sent to the strong expert (%)", scale=alt.Scale(domain=[0, 100]))
    looks = {call_label(report, name): look_of[name] for name in names}
    behind = [marks, texts.encode(y="score:Q", x="share:Q", text="text:N")]
    return charts.curves(rows, x, looks, has_dots=False, behind=behind)


def certainty_section(report: Report) -> Section:
    """Whether probabilities and predicted scores come true, and which categories are taken for which."""
    lead = leading_method(report)
    rows = [
        Row(
            curve_of(report, name),
            [str(found.n), percent(found.ece), number(found.brier, 3)],
            is_own=name == lead,
        )
        for name, found in report.calibration.items()
    ]
    columns = ["Prediction", "Queries", "Calibration error (ECE)", "Brier score"]
    blocks = [reliability_chart(report), confusion_chart(report), Table(columns, rows, "Calibration")]
    return Section("certainty", "How sure it is, and how right", blocks)


def curve_of(report: Report, name: str) -> str:
    return CATEGORY_CURVE if name == "category" else f"score predicted by {call_label(report, name)}"


def reliability_chart(report: Report) -> Chart | None:
    """Bins of the confidence in the category and of the leading method's predicted score. None without predictions."""
    names = [name for name in ("category", leading_method(report)) if name is not None]
    known = {curve_of(report, name): report.calibration[name] for name in names if name in report.calibration}
    rows: list[Spec] = [
        {"group": label, "predicted": 100 * p.predicted, "observed": 100 * p.observed, "queries": p.count}
        for label, found in known.items()
        for p in found.points
    ]
    if not rows:
        return None
    alt = charts.altair()
    scale, ticks = alt.Scale(domain=[0, 100]), alt.Axis(values=list(range(0, 101, 20)))
    x = alt.X("predicted:Q", title="predicted (%)", scale=scale, axis=ticks)
    y = alt.Y("observed:Q", title="came true (%)", scale=scale, axis=ticks)
    ends = charts.data([{"predicted": 0, "observed": 0}, {"predicted": 100, "observed": 100}])
    diagonal = ends.mark_line(strokeDash=[4, 4], color=SOFT, strokeWidth=1.5).encode(x=x, y=y)
    looks = dict(zip(known, METHOD_LOOKS, strict=False))
    base = charts.data(rows).encode(x=x, y=y, color=charts.group_colour(looks))
    size = alt.Size("queries:Q", scale=alt.Scale(range=[25, 350]), legend=None)
    tooltip = charts.tooltips(
        series="group:N", predicted="predicted:Q|.1f", observed="observed:Q|.1f", queries="queries:Q"
    )
    dots = base.mark_point(filled=True, opacity=0.85).encode(size=size, tooltip=tooltip)
    layers = alt.layer(diagonal, base.mark_line(strokeWidth=1.5, opacity=0.35), dots)
    caption = (
        "Bins of equal width. A dot on the diagonal keeps its promise; below it, too much was promised. Larger dots "
        "hold more queries."
    )
    return Chart("chart-reliability", charts.finished(layers.properties(height=SQUARE), SQUARE), caption)


def confusion_chart(report: Report) -> Chart | None:
    """True against most likely categories. None with one category."""
    found = report.confusion
    if found is None or len(found.categories) < 2:
        return None
    names = list(found.categories)
    rows: list[Spec] = [
        {
            "down": names[i],
            "across": names[j],
            "share": count / max(sum(line), 1),
            "text": str(count),
            "tip": f"{count} queries, {count / max(sum(line), 1):.0%} of the row",
        }
        for i, line in enumerate(found.counts)
        for j, count in enumerate(line)
        if count
    ]
    caption = (
        "Rows are true categories, columns the most likely ones. The fuller a cell, the larger its share of the row."
    )
    spec = charts.heat_map(rows, names, names, ("most likely category", "true category"))
    return Chart("chart-confusion", spec, caption)


def stability_section(stable: RobustnessRecord) -> Section:
    """How many decisions flip under changes that leave the question the same."""
    rows = [
        Row(
            name.replace("_", " "),
            [
                str(found.experts.n),
                metric_cell(found.experts),
                metric_cell(found.categories),
                "" if found.quality_change is None else points(found.quality_change.value),
            ],
        )
        for name, found in stable.families.items()
    ]
    text = (
        f"{counted(stable.n_texts, 'text was', 'texts were')} changed in "
        f"{counted(stable.n_cases, 'way that leaves', 'ways that leave')} the question the same. "
        f"{percent(stable.overall.experts.value)} of the changed texts go to another expert, "
        f"{percent(stable.overall.categories.value)} to another category."
    )
    quotes = [
        (
            f"{case.family.replace('_', ' ')}, {case.template}: {case.expert} ({case.category}) becomes "
            f"{case.to_expert} ({case.to_category})",
            case.changed_text,
        )
        for case in stable.examples
    ]
    blocks: list[Block] = [text, Table(["Change", "Cases", "Other expert", "Other category", "Change of score"], rows)]
    blocks += [Fold("Examples of decisions that flip", [Quotes(quotes)])] if quotes else []
    return Section("stability", "Stability", blocks)


def metric_cell(metric: Metric) -> Cell:
    interval = metric.interval
    return percent_cell(metric.value, None if interval is None else (interval.low, interval.high))


def diagnostics_section(found: Diagnostics) -> Section:
    """Signs of collapse, degradation and underfitting, and the cells to measure first."""
    rows = [
        Row(name, [Cell("no", tone="good") if is_fine else Cell("yes", tone="bad"), text])
        for name, is_fine, text in diagnosis(found)
    ]
    blocks: list[Block] = [
        Table(["Sign", "Found", "What was seen"], rows, texts=["Found", "What was seen"]),
    ]
    if found.thin:
        thin = [Row(f"{one.category}, {one.expert}", [str(one.count), str(one.missing)]) for one in found.thin]
        table = Table(["Category and expert", "Graded answers", "Missing"], thin)
        blocks.append(Fold("Cells to measure first", [table]))
    return Section("diagnostics", "Diagnostics", blocks)


def lost_section(lost: tuple[LostQuery, ...]) -> Section:
    quotes = []
    for one in lost:
        likely = f", taken for {one.likely_category}" if one.likely_category != one.category else ""
        about = (
            f"{one.chosen} scored {percent(one.chosen_score, 0)}, {one.best} {percent(one.best_score, 0)}. Category "
            f"{one.category}{likely}; `{one.prompt_id}`"
        )
        quotes.append((about, one.excerpt))
    text = (
        "Where the chosen expert did worst against the best one; of equal losses, first those that most experts answer "
        "well."
    )
    return Section("lost", "Queries lost by the most", [text, Quotes(quotes)])


def measured_section(report: Report) -> Section:
    """What was measured on what, and the command that does it again."""
    d = report.data
    source = f"{d.source}, scored by {d.metric}"
    source += f"; the fit queries by {d.fit_metric}" if d.fit_metric not in ("", d.metric) else ""
    one = "; no category there has enough fit queries to be learned, so all queries are one"
    splits = ", ".join(f"{name} {count}" for name, count in d.splits.items())
    queries = f"{d.n_fit} to fit, {d.n_test} to test ({f'splits: {splits}' if splits else 'a table of its own'})"
    if d.n_overlap_removed:
        queries += f"; {d.n_overlap_removed} fit queries left out because the test set holds the same text"
    if d.n_incomplete_removed:
        queries += f"; {d.n_incomplete_removed} left out because some expert has no score there"
    facts = [
        ("Data", source),
        ("Categories", f"column “{d.category_column}”{one if d.has_one_category else ''}"),
        ("Experts", ", ".join(d.experts)),
        ("Queries", queries),
        ("Budget", ", ".join(f"{name} at most {value}" for name, value in d.budgets.items())),
        ("Fingerprints", ", ".join(f"{name} `{value}`" for name, value in d.fingerprints.items())),
        ("Router", f"`{d.router_version}`, encoder {d.encoder}"),
        ("Seed", str(report.seed)),
        ("Made", f"{report.created_at}; the same numbers are in report.json"),
    ]
    text = (
        "Everything that is learned or chosen (classifier, map, methods, prices, best single expert, k-NN neighbours) "
        "saw the fit queries only. Every figure is on test queries that share no text with them. Intervals are "
        "percentile bootstrap intervals over test queries; they do not cover another draw of the fit data."
    )
    known = [(name, value) for name, value in facts if value]
    return Section("measured", "How this was measured", [text, Command(report.command), Facts(known)])
