"""The page of a retrieval report: its sections, each a few sentences, tables and charts of the record, and its findings
in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from eval.metrics.intervals import Estimate, Range
from eval.report import charts
from eval.report.charts import ACCENT, SOFT, Look
from eval.report.numbers import cell_of
from eval.report.page import Block, Cell, Chart, Command, Facts, Figure, Page, Row, Section, Spec, Table
from eval.retrieval.arms import LABELS, PLAIN
from eval.retrieval.retrieval_records import ArmScore, CollectionReport, Latency, RetrievalReport

SHOWN = (
    "base",
    "bm25",
    "rrf",
    "hybrid",
    "multitask_hybrid",
    "centroid",
    "pilot",
    "coe_single",
    "coe",
    "collection_oracle",
    "query_oracle",
)
"""Arms that have a column of their own, and a row in the chart."""
VERDICTS = {
    "good": "Routing beats the best plain way",
    "bad": "Routing does worse than the best plain way",
    "": "Routing cannot be told from the best plain way",
}
NO_GAIN = 0.05
"""Gain over base whose cell in the heat map has the full colour, where no expert gains or loses more."""


def retrieval_page(report: RetrievalReport) -> Page:
    """The page; a section without anything to show is left out."""
    coe, plain = report.mean["coe"], best_plain(report.mean)
    best = report.mean[plain]
    lead, gain = difference_cell(best.lead), difference_cell(coe.gain)
    found = [
        arms_section(report),
        collections_section(report),
        experts_section(report),
        choices_section(report),
        losses_section(report),
        unprepared_section(report) if report.mean_left_out else None,
        added_section(report) if report.added else None,
        Section("latency", "Latency", [latency_sentence(report.latency)]),
        measured_section(report),
    ]
    return Page(
        kind=f"Retrieval report, {report.title}, {len(report.collections)} collections",
        title=f"{VERDICTS[lead.tone]}, \u201c{LABELS[plain]}\u201d: {best.lead.mean:+.3f} nDCG@10",
        lead=report.headline,
        figures=[
            Figure("This router, all collections", f"{coe.ndcg_at_10:.3f}", ends(coe.interval)),
            Figure("Minus the best plain way", lead.text, lead.interval, lead.tone),
            Figure("Minus base", gain.text, gain.interval, gain.tone),
            Figure("Choosing takes", f"{report.latency.choose_ms:.2f} ms", "after the base encoding"),
        ],
        sections=[section for section in found if section is not None],
        first={"chart-arms": "How each way of searching scores"},
        tone=lead.tone,
    )


def ends(interval: Range, form: str = ".3f") -> str:
    return f"{interval[0]:{form}} to {interval[1]:{form}}"


difference_cell = partial(cell_of, words="{:+.3f}".format, is_difference=True)


def score_cell(arm: str, found: Mapping[str, ArmScore]) -> Cell:
    return Cell(f"{found[arm].ndcg_at_10:.3f}", ends(found[arm].interval)) if arm in found else Cell("absent")


def arms_section(report: RetrievalReport) -> Section:
    """Every way to search, over all collections and over those with train queries where some have none."""
    means = {"All collections": report.mean}
    if any(not collection.labelled for collection in report.collections.values()):
        means["With train queries"] = report.mean_prepared
    tables = [
        Table(
            ["Way to search", "nDCG@10", "Minus base", "This router minus it"],
            [
                Row(
                    LABELS[arm],
                    [score_cell(arm, found), difference_cell(value.gain), difference_cell(value.lead)],
                    report.arm_meaning[arm],
                    arm == "coe",
                )
                for arm, value in found.items()
            ],
            f"{title}: mean over collections",
        )
        for title, found in means.items()
        if found
    ]
    return Section("arms", "Ways to search", [arms_chart(report), *tables])


def arms_chart(report: RetrievalReport) -> Chart:
    rows: list[Spec] = [
        {
            "name": LABELS[arm],
            "group": "this router" if arm.startswith("coe") else "another way",
            "score": found.ndcg_at_10,
            "low": found.interval[0],
            "high": found.interval[1],
            "text": f"{found.ndcg_at_10:.3f}",
        }
        for arm, found in report.mean.items()
        if arm in SHOWN
    ]
    looks = {"this router": Look(ACCENT), "another way": Look(SOFT)}
    spec = charts.dot_rows(rows, "mean nDCG@10, with 95% interval", looks, has_labels=True, most=1.0)
    return Chart("chart-arms", spec, "Mean over collections of nDCG@10 on their test queries.")


def shown_arms(report: RetrievalReport) -> list[str]:
    return [arm for arm in SHOWN if any(arm in found.arms for found in report.collections.values())]


def collections_section(report: RetrievalReport) -> Section:
    shown = shown_arms(report)
    rows = [
        Row(
            name,
            [
                str(found.queries),
                *(score_cell(arm, found.arms) for arm in shown),
                difference_cell(found.arms["coe"].gain),
            ],
            f"{found.documents:,} documents, {found.labelled} labelled",
        )
        for name, found in report.collections.items()
    ]
    table = Table(
        ["Collection", "Queries", *(LABELS[arm] for arm in shown), "This router minus base"], rows, is_wide=True
    )
    return Section("collections", "By collection", [table])


def experts_section(report: RetrievalReport) -> Section:
    """Each expert serving every query of each collection."""
    gains = {
        (name, expert): found.experts[expert] - found.experts["base"]
        for name, found in report.collections.items()
        for expert in report.experts
    }
    reach = max(NO_GAIN, *map(abs, gains.values()))
    rows: list[Spec] = [
        {
            "down": name,
            "across": expert,
            "share": abs(gain) / reach,
            "is_below": gain < 0,
            "text": f"{report.collections[name].experts[expert]:.2f}",
            "tip": f"{report.collections[name].experts[expert]:.3f}, {gain:+.3f} to base",
        }
        for (name, expert), gain in gains.items()
    ]
    caption = (
        "nDCG@10 when one expert serves every test query of a collection. One colour is above base, the other below; "
        "the fuller, the further from it."
    )
    spec = charts.heat_map(rows, report.experts, list(report.collections), ("expert", "collection"))
    return Section("matrix", "Experts by collection", [Chart("chart-matrix", spec, caption)])


def choices_section(report: RetrievalReport) -> Section:
    rows = [
        Row(name, [listed(dict(list(found.shares.items())[:4])), listed(found.reasons)])
        for name, found in report.collections.items()
    ]
    texts = ["Arms, share of queries", "Reasons"]
    return Section("chosen", "What routing chose", [Table(["Collection", *texts], rows, texts=texts)])


def listed(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def losses_section(report: RetrievalReport) -> Section:
    nowhere = "Nowhere: it is at or above base and the best single expert on every collection."
    blocks: list[Block] = [*(report.losses or [nowhere])]
    if report.lost:
        rows = [
            Row(
                lost.text,
                [lost.arm, f"{lost.ndcg_at_10:.3f}", f"{lost.base:.3f}"],
                f"{lost.collection}, {lost.query_id}",
            )
            for lost in report.lost
        ]
        caption = "Queries that it served worse than base by the most"
        blocks.append(Table(["Query", "Chosen", "nDCG@10", "Base"], rows, caption, texts=["Chosen"]))
    return Section("losing", "Where routing loses", blocks)


def unprepared_section(report: RetrievalReport) -> Section:
    mean = report.mean_left_out
    shown = [arm for arm in shown_arms(report) if arm in mean]
    found = {"mean": mean, **{name: one.left_out for name, one in report.collections.items()}}
    rows = [
        Row(name, [*(score_cell(arm, arms) for arm in shown), difference_cell(arms["coe"].gain)], is_own=arms is mean)
        for name, arms in found.items()
    ]
    text = "Each collection in turn without its labelled queries and without the expert that was trained on it."
    table = Table(["Collection", *(LABELS[arm] for arm in shown), "This router minus base"], rows, is_wide=True)
    return Section("unprepared", "Unprepared domains", [text, table])


def added_section(report: RetrievalReport) -> Section:
    rows = [
        Row(one.expert, [f"{one.mean_change:+.4f}", f"{one.worst_change:+.4f}", one.worst_collection])
        for one in report.added
    ]
    caption = "Change of this router's nDCG@10 on the collections that are not the expert's own"
    table = Table(["Expert", "Mean", "Worst", "Where"], rows, caption, texts=["Where"])
    return Section("added", "Adding an expert", [table])


def latency_sentence(found: Latency) -> str:
    parts = [
        ("base encoding", found.base_encode_ms, ""),
        ("choosing", found.choose_ms, ""),
        ("encoding under an adapter", found.adapter_encode_ms, " (only when one is chosen)"),
        ("exact search", found.search_ms, ""),
        ("a fusion with BM25", found.fuse_ms, ""),
    ]
    told = ", ".join(f"{name} {ms:.2f} ms{when}" for name, ms, when in parts if ms is not None)
    return f"Medians of one query at a time on this machine: {told}."


def measured_section(report: RetrievalReport) -> Section:
    facts = [
        ("Experts", ", ".join(report.experts)),
        ("Pilot library", report.library_version),
        ("Settings", ", ".join(f"{name} {value}" for name, value in report.settings.items()) or "none"),
        ("Made", f"{report.created_at}; the same numbers are in report.json"),
    ]
    return Section("measured", "How this was measured", [*report.notes, Command(report.command), Facts(facts)])


def headline(mean: Mapping[str, ArmScore], left_out: Mapping[str, ArmScore]) -> str:
    """Routing against base and the best of `PLAIN`, and against a plain fusion with each collection unknown.

    Args:
        mean: over the collections with train queries, or all where none has any; `left_out` over the former.
    """
    coe, base = mean["coe"], mean["base"]
    plain = best_plain(mean)
    text = f"Routing has nDCG@10 {coe.ndcg_at_10:.3f}, base {base.ndcg_at_10:.3f} and the best plain way "
    text += f"(\u201c{LABELS[plain]}\u201d) {mean[plain].ndcg_at_10:.3f}: routing adds {in_brackets(mean[plain].lead)}."
    if "hybrid" in left_out:
        unknown, hybrid = left_out["coe"], left_out["hybrid"]
        text += f" With each collection unknown it has {unknown.ndcg_at_10:.3f}, a plain fusion of base and BM25 "
        text += f"{hybrid.ndcg_at_10:.3f}: {in_brackets(hybrid.lead)}."
    return text


def best_plain(mean: Mapping[str, ArmScore]) -> str:
    """The plain way with the highest mean."""
    return max((arm for arm in PLAIN if arm in mean), key=lambda arm: mean[arm].ndcg_at_10, default="base")


def in_brackets(found: Estimate) -> str:
    return f"{found.mean:+.3f} ({ends(found.interval, '+.3f')})"


def losses(reports: Mapping[str, CollectionReport]) -> tuple[str, ...]:
    """Names the collections where routing is below base, or below their best single expert."""
    found = []
    for name, report in reports.items():
        coe, best = report.arms["coe"], report.arms["collection_oracle"]
        if coe.gain.mean < 0:
            certain = "more than chance explains" if coe.gain.interval[1] < 0 else "within chance"
            interval = ends(coe.gain.interval, "+.3f")
            found.append(f"{name}: {coe.gain.mean:+.3f} against base ({interval}, {certain}).")
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
        "Pilots come from train queries that no adapter was trained on, 200 of a collection at most; settings from "
        "dev queries; test queries were used for this report only.",
        "Intervals: 2,000 bootstrap samples of queries within each collection, paired with base.",
    ]
    if skipped:
        text.append(f"Left out for lack of a query, a document or a relevant document: {', '.join(skipped)}.")
    return tuple(text)
