"""The page of a routing report: the order of its sections, with the short ones and those on regret and categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eval.report import charts
from eval.report.charts import ACCENT, HINDSIGHT, INK, ROW_HEIGHT, SOFT, Look
from eval.report.numbers import (
    billions,
    cell_of,
    counted,
    percent,
    percent_range,
    points,
    points_range,
    tone,
    whole_percent,
)
from eval.report.page import (
    Block,
    Cell,
    Chart,
    Columns,
    Command,
    Facts,
    Figure,
    Fold,
    Page,
    Quotes,
    Row,
    Section,
    Spec,
    Table,
    table_of,
)
from eval.routing.arms_section import scores_section
from eval.routing.budget_section import budget_section
from eval.routing.certainty_sections import calls_section, certainty_section
from eval.routing.routing_records import CategoryRow, Diagnostics, LostQuery, Report
from eval.routing.routing_words import FEWEST_TOLD, PART_MEANING, PART_NAMES, diagnosis, regret_sentence, verdict

MAX_CATEGORIES = 24
"""The largest ones that a chart shows, and up to which tables are open."""


def routing_page(report: Report) -> Page:
    """The page; a section without anything to show is left out."""
    found = [
        scores_section(report),
        regret_section(report),
        categories_section(report),
        budget_section(report),
        None if report.cheap_strong is None else calls_section(report, report.cheap_strong),
        certainty_section(report) if report.calibration else None,
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
        tone=gain_tone(report),
    )
    return replace(page, first=first_charts(report, page.charts))


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


def gain_tone(report: Report) -> str:
    """The tone of the difference to the best single expert; none where the queries are too few to tell."""
    return tone(report.gain["best_single"].interval) if report.data.n_test >= FEWEST_TOLD else ""


def figures(report: Report) -> list[Figure]:
    own, gain, knn = report.arms["coe"], report.gain["best_single"], report.gain["knn"]
    gap = cell_of(report.gap_closed, whole_percent, "no gap")
    found = [
        Figure("This router", percent(own.mean_score), percent_range(own.interval)),
        Figure("Against the best single", f"{points(gain.mean)} pts", points_range(gain.interval), gain_tone(report)),
        Figure("Gap to the oracle closed", gap.text, gap.interval),
    ]
    if own.mean_active_params_b is None:
        return [*found, Figure("Against k-NN", f"{points(knn.mean)} pts", points_range(knn.interval))]
    single = billions(report.arms["best_single"].mean_active_params_b)
    return [*found, Figure("Active parameters", billions(own.mean_active_params_b), f"best single: {single}")]


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
    """The data behind the figures, and the command that measures them again."""
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


def regret_section(report: Report) -> Section:
    """The distance to the best expert for every query, in parts."""
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
    columns: Columns[CategoryRow] = {
        "Test queries": lambda _, row: str(row.n_test),
        "Expert in the map": lambda _, row: row.expert,
        "Predicted right": lambda _, row: percent(row.accuracy, 0),
        "To general": lambda _, row: percent(row.fallback_share, 0),
        "This router": lambda _, row: percent(row.scores["coe"]),
        "Best single": lambda _, row: percent(row.scores["best_single"]),
        "k-NN": lambda _, row: percent(row.scores["knn"]),
        "Category oracle": lambda _, row: percent(row.scores["category_oracle"]),
        "Query oracle": lambda _, row: percent(row.scores["query_oracle"]),
    }
    table = table_of("Category", {row.category: row for row in report.categories}, columns)
    return replace(table, texts=["Expert in the map"])


def category_regret_table(report: Report) -> Table:
    rows = []
    for row in report.regret.by_category:
        parts = [points(row.parts[name].mean) for name in PART_NAMES]
        rows.append(Row(row.category, [*parts, points(row.total.mean), points_range(row.total.interval)]))
    return Table(["Category", *PART_NAMES.values(), "Total", "95% interval"], rows)
