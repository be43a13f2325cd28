"""The page of a retrieval report, and its findings in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.retrieval_eval.arms import LABELS, PLAIN
from benchmarks.retrieval_eval.records import (
    ArmScore,
    CollectionReport,
    RetrievalReport,
)
from coe.eval.metrics.intervals import Estimate
from coe.eval.report import drawing
from coe.eval.report.page import Chart, Column, Figure, Page, Section, cell_of, cite, facts_of, table_of

VERDICTS = {
    "good": "Routing beats the best plain way",
    "bad": "Routing does worse than the best plain way",
    "": "Routing cannot be told from the best plain way",
}
NO_GAIN = 0.05
"""Gain over base whose cell in the heat map has the full colour, where no expert gains or loses more."""
SHOWN = ("base", "bm25", "hybrid", "coe", "collection_oracle")
"""Arms that have a column of their own in the table of collections."""
score, change = "{:.3f}".format, "{:+.3f}".format


def retrieval_page(report: RetrievalReport) -> Page:
    """The whole page."""
    coe, plain = report.mean["coe"], best_plain(report.mean)
    lead = cell_of(report.mean[plain].lead, change, is_difference=True)
    scores = {LABELS.get(arm, arm): found.score for arm, found in report.mean.items()}
    groups = {LABELS["coe"]: "this router"} | {name: "another way" for name in scores if name != LABELS["coe"]}
    picture = Chart(
        "Mean over collections of nDCG@10 on their test queries.",
        drawing.dots(scores, "mean nDCG@10, with 95% interval", ".3f", groups),
    )
    return Page(
        kind=f"Retrieval report, {report.title}, {len(report.collections)} collections",
        title=f"{VERDICTS[lead.tone]}, \u201c{LABELS[plain]}\u201d: {lead.text} nDCG@10",
        lead=report.headline,
        figures=[
            Figure("This router, all collections", cell_of(coe.score, score)),
            Figure("Minus the best plain way", lead),
            Figure("Minus base", cell_of(coe.gain, change, is_difference=True)),
        ],
        picture=picture,
        sections=[
            arms_section(report),
            collections_section(report),
            chosen_section(report),
            losses_section(report),
            measured_section(report),
        ],
        tone=lead.tone,
    )


def arms_section(report: RetrievalReport) -> Section:
    """Every way to search, over all collections, those with train queries, and each of these while it is unknown."""
    columns: list[Column[str]] = [
        Column("All collections", lambda arm: report.mean[arm].score, score),
        Column("Minus base", lambda arm: report.mean[arm].gain, change, is_difference=True),
        Column("This router minus it", lambda arm: report.mean[arm].lead, change, is_difference=True),
    ]
    if any(not found.labelled for found in report.collections.values()):
        columns.append(Column("With train queries", lambda arm: score_of(report.mean_prepared, arm), score))
    columns.append(Column("Each unknown", lambda arm: score_of(report.mean_left_out, arm), score))
    named = {LABELS.get(arm, arm): arm for arm in report.mean}
    table = table_of(
        "Way to search", named, columns, own=LABELS["coe"], how=lambda arm: report.arm_meaning.get(arm, "")
    )
    sentence = (
        "nDCG@10, mean over collections; unknown is each collection with train queries without its labels and without "
        "the expert that was trained on it."
    )
    return Section("Ways to search", sentence, table)


def score_of(arms: Mapping[str, ArmScore], arm: str) -> Estimate | None:
    return arms[arm].score if arm in arms else None


def collections_section(report: RetrievalReport) -> Section:
    """The arms of each collection, and each expert alone as a chart."""

    def arm_column(arm: str) -> Column[CollectionReport]:
        return Column(LABELS.get(arm, arm), lambda found: score_of(found.arms, arm), score)

    columns: list[Column[CollectionReport]] = [
        Column("Queries", lambda found: found.queries),
        *(arm_column(arm) for arm in SHOWN),
        Column("This router minus base", lambda found: found.arms["coe"].gain, change, is_difference=True),
        Column("The same, unknown", lambda found: found.left_out["coe"].gain, change, is_difference=True),
    ]
    table = table_of(
        "Collection",
        report.collections,
        columns,
        how=lambda found: f"{found.documents:,} documents, {found.labelled} labelled",
    )
    gains = {
        (name, expert): found.experts[expert] - found.experts["base"]
        for name, found in report.collections.items()
        for expert in report.experts
    }
    spec = drawing.heat_map(gains, ("collection", "expert"), "+.2f", NO_GAIN)
    caption = "nDCG@10 minus base when one expert serves every query of a collection."
    return Section("By collection", "nDCG@10 on the test queries of each collection.", table, Chart(caption, spec))


def chosen_section(report: RetrievalReport) -> Section:
    columns: list[Column[CollectionReport]] = [
        Column("Arms, share of queries", lambda found: listed(dict(list(found.shares.items())[:4]))),
        Column("Reasons", lambda found: listed(found.reasons)),
    ]
    return Section("What routing chose", table=table_of("Collection", report.collections, columns))


def listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def losses_section(report: RetrievalReport) -> Section:
    nowhere = "Nowhere: it is at or above base and the best single expert on every collection."
    return Section("Where routing loses", " ".join(report.losses) or nowhere)


def measured_section(report: RetrievalReport) -> Section:
    facts = {
        "Command": report.command,
        "Experts": ", ".join(report.experts),
        "Pilot library": report.library_version,
        "Settings": ", ".join(f"{name} {value}" for name, value in report.settings.items()),
        "Made": report.created_at,
    }
    return Section("How this was measured", " ".join(report.notes), facts_of(facts))


def headline(mean: Mapping[str, ArmScore], left_out: Mapping[str, ArmScore]) -> str:
    """Routing against base and the best of `PLAIN`, and against a plain fusion with each collection unknown.

    Args:
        mean: over the collections with train queries, or all where none has any; `left_out` over the former.
    """
    coe, base = mean["coe"], mean["base"]
    plain = best_plain(mean)
    text = f"Routing has nDCG@10 {coe.ndcg_at_10:.3f}, base {base.ndcg_at_10:.3f} and the best plain way "
    text += (
        f"(\u201c{LABELS[plain]}\u201d) {mean[plain].ndcg_at_10:.3f}: routing adds {cite(mean[plain].lead, change)}."
    )
    if "hybrid" in left_out:
        unknown, hybrid = left_out["coe"], left_out["hybrid"]
        text += f" With each collection unknown it has {unknown.ndcg_at_10:.3f}, a plain fusion of base and BM25 "
        text += f"{hybrid.ndcg_at_10:.3f}: {cite(hybrid.lead, change)}."
    return text


def best_plain(mean: Mapping[str, ArmScore]) -> str:
    """The plain way with the highest mean."""
    return max((arm for arm in PLAIN if arm in mean), key=lambda arm: mean[arm].ndcg_at_10, default="base")


def losses(reports: Mapping[str, CollectionReport]) -> tuple[str, ...]:
    """Names the collections where routing is below base, or below their best single expert."""
    found = []
    for name, report in reports.items():
        coe, best = report.arms["coe"], report.arms["collection_oracle"]
        if coe.gain.mean < 0:
            certain = "more than chance explains" if coe.gain.interval[1] < 0 else "within chance"
            found.append(f"{name}: {cite(coe.gain, change)} against base, {certain}.")
        elif coe.ndcg_at_10 < best.ndcg_at_10:
            expert = max((e for e in report.experts if "+" not in e), key=lambda e: report.experts[e])
            missed = best.ndcg_at_10 - coe.ndcg_at_10
            found.append(f"{name}: {missed:.3f} below '{expert}', the best single expert there.")
    return tuple(found)


def notes(*, measured_skips: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    skipped = [f"{name} {count}" for name, count in measured_skips if count]
    text = [
        "nDCG@10 with linear gains, as trec_eval's ndcg_cut_10; equal scores are ordered by document id, last first.",
        "Documents are read as 'title. text' and cut at the base encoder's max_tokens; search is exact.",
        "Pilots come from train queries that no expert was trained on, 200 of a collection at most; settings from "
        "dev queries; test queries were used for this report only.",
        "Intervals: 2,000 bootstrap samples of queries within each collection, paired with base.",
    ]
    if skipped:
        text.append(f"Left out for lack of a query, a document or a relevant document: {', '.join(skipped)}.")
    return tuple(text)
