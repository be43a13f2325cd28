"""The page of a routing report: the order of its sections, and the short ones among them."""

from __future__ import annotations

from collections.abc import Mapping

from eval.report.numbers import (
    billions,
    counted,
    metric_cell,
    percent,
    percent_cell,
    percent_range,
    points,
    points_range,
    tone,
)
from eval.report.page import (
    Block,
    Cell,
    Columns,
    Command,
    Facts,
    Figure,
    Fold,
    Page,
    Quotes,
    Row,
    Section,
    Table,
    table_of,
)
from eval.robustness.flip_records import FamilyFlips, RobustnessRecord
from eval.routing.arms_section import scores_section
from eval.routing.budget_section import budget_section
from eval.routing.category_sections import categories_section, regret_section
from eval.routing.certainty_sections import calls_section, certainty_section
from eval.routing.routing_records import Diagnostics, LostQuery, Report
from eval.routing.routing_words import FEWEST_TOLD, diagnosis, verdict


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
        tone=gain_tone(report),
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


def gain_tone(report: Report) -> str:
    """The tone of the difference to the best single expert; none where the queries are too few to tell."""
    return tone(report.gain["best_single"].interval) if report.data.n_test >= FEWEST_TOLD else ""


def figures(report: Report) -> list[Figure]:
    own, gain, knn = report.arms["coe"], report.gain["best_single"], report.gain["knn"]
    gap = "no gap" if report.gap_closed is None else percent(report.gap_closed, 0)
    found = [
        Figure("This router", percent(own.mean_score), percent_range(own.interval)),
        Figure("Against the best single", f"{points(gain.mean)} pts", points_range(gain.interval), gain_tone(report)),
        Figure("Gap to the oracle closed", gap, percent_cell(None, report.gap_closed_interval, 0).interval),
    ]
    if own.mean_active_params_b is None:
        return [*found, Figure("Against k-NN", f"{points(knn.mean)} pts", points_range(knn.interval))]
    single = billions(report.arms["best_single"].mean_active_params_b)
    return [*found, Figure("Active parameters", billions(own.mean_active_params_b), f"best single: {single}")]


def stability_section(stable: RobustnessRecord) -> Section:
    """Flips of decisions under changes that leave the question the same."""
    columns: Columns[FamilyFlips] = {
        "Cases": lambda _, found: str(found.experts.n),
        "Other expert": lambda _, found: metric_cell(found.experts),
        "Other category": lambda _, found: metric_cell(found.categories),
        "Change of score": lambda _, found: points(found.quality_change.value) if found.quality_change else "",
    }
    table = table_of("Change", stable.families, columns, label=lambda name, _: name.replace("_", " "))
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
    blocks: list[Block] = [text, table]
    blocks += [Fold("Examples of decisions that flip", [Quotes(quotes)])] if quotes else []
    return Section("stability", "Stability", blocks)


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
