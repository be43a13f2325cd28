"""Regret and categories, as sections of the page: where the distance to the best choice was lost."""

from __future__ import annotations

from dataclasses import replace

from eval.report import charts
from eval.report.charts import ACCENT, HINDSIGHT, INK, ROW_HEIGHT, SOFT, Look
from eval.report.numbers import counted, percent, points, points_range
from eval.report.page import Block, Chart, Columns, Fold, Row, Section, Spec, Table, table_of
from eval.routing.routing_records import CategoryRow, Report
from eval.routing.routing_words import PART_MEANING, PART_NAMES, regret_sentence

MAX_CATEGORIES = 24
"""The largest ones that a chart shows, and up to which tables are open."""


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
