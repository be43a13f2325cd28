"""The report in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.retrieval.arms import LABELS, PLAIN
from eval.retrieval.retrieval_records import ArmScore, CollectionReport


def headline(mean: Mapping[str, ArmScore], left_out: Mapping[str, ArmScore]) -> str:
    """Routing against base and the best of `PLAIN`, and against a plain fusion with each collection unknown.

    Args:
        mean: over the collections with train queries, or all where none has any; `left_out` over the former.
    """
    coe, base = mean["coe"], mean["base"]
    plain = best_plain(mean)
    text = f"Routing has nDCG@10 {coe.ndcg_at_10:.3f}, base {base.ndcg_at_10:.3f} and the best plain way "
    text += f"(\u201c{LABELS[plain]}\u201d) {mean[plain].ndcg_at_10:.3f}: routing adds {lead(mean[plain])}."
    if "hybrid" in left_out:
        unknown, hybrid = left_out["coe"], left_out["hybrid"]
        text += f" With each collection unknown it has {unknown.ndcg_at_10:.3f}, a plain fusion of base and BM25 "
        text += f"{hybrid.ndcg_at_10:.3f}: {lead(hybrid)}."
    return text


def best_plain(mean: Mapping[str, ArmScore]) -> str:
    """The plain way with the highest mean."""
    return max((arm for arm in PLAIN if arm in mean), key=lambda arm: mean[arm].ndcg_at_10, default="base")


def lead(arm: ArmScore) -> str:
    low, high = arm.lead_interval
    return f"{arm.lead:+.3f} ({low:+.3f} to {high:+.3f})"


def losses(reports: Mapping[str, CollectionReport]) -> tuple[str, ...]:
    """Names the collections where routing is below base, or below their best single expert by more than chance
    explains."""
    found = []
    for name, report in reports.items():
        coe, best = report.arms["coe"], report.arms["collection_oracle"]
        low, high = coe.gain_interval
        if coe.gain < 0:
            certain = "more than chance explains" if high < 0 else "within chance"
            found.append(f"{name}: {coe.gain:+.3f} against base ({low:+.3f} to {high:+.3f}, {certain}).")
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
