"""Measures every expert on every collection, fits the pilot library on train, chooses on dev, reports on test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from benchmarks.retrieval_eval.arms import MEANING, Compared, PlainFusions, Situation, compare, plain_fusions
from benchmarks.retrieval_eval.page import headline, losses, notes
from benchmarks.retrieval_eval.records import (
    ArmScore,
    CollectionReport,
    RetrievalReport,
)
from benchmarks.retrieval_eval.request import RetrievalRequest, requested_experts
from coe.base.errors import DataError
from coe.eval.metrics.intervals import DRAWS, Estimate, bootstrap_means, percentile_interval
from coe.retrieval.build_experts import build_experts
from coe.retrieval.routing.pilot_library import LibraryManifest, PilotLibrary
from coe.retrieval.training.build_library import extend_library
from coe.retrieval.training.collection import Collection, find_collections, read_collection
from coe.retrieval.training.labels import Labelled, label, label_pilots, locate
from coe.retrieval.training.routing_tuning import tuned
from coe.retrieval.training.searcher import Searcher, all_arms
from coe.retrieval.types import Arm, RetrievalExpert
from coe.router.types import FloatArray

Scores = Mapping[str, FloatArray]
"""Arm -> score per query (n,)."""


@dataclass(frozen=True)
class Measured:
    """One collection: labelled train queries for pilots, dev and test queries, all over the same arms, and plain
    fusions, which are compared with and not routed to."""

    collection: Collection
    pilots: Labelled | None
    dev: Labelled
    test: Labelled
    plain_dev: PlainFusions | None
    plain_test: PlainFusions | None


def run_retrieval(
    request: RetrievalRequest,
    *,
    now: datetime,
    progress: Callable[[str], None],
    compare: Callable[[Labelled, Situation, PlainFusions | None], Compared] = compare,
) -> tuple[RetrievalReport, PilotLibrary | None]:
    """The report, and the pilot library that it measured; None without train queries.

    Args:
        compare: measures the arms on the test queries of a collection; a benchmark has more of them.

    Raises:
        DataError: a collection cannot be read, or none has test queries. ConfigError, ArtifactError: of the experts.
    """
    config, root = requested_experts(request.experts)
    experts = build_experts(config, root)
    arms = all_arms(experts)
    collections = [read_collection(folder) for folder in find_collections(request.data)]
    searchers = [Searcher(each, experts, request.cache, progress) for each in collections if len(each.split("test"))]
    if not searchers:
        raise DataError(f"{request.data}: no collection has test queries; expected qrels/test.tsv")
    pilots, arms = label_pilots(searchers, arms)
    pilots_of = {part.collection: part for part in pilots}
    measured = [measure(each, arms, pilots_of, progress) for each in searchers]
    progress("choosing settings on dev")
    library = fit(measured, experts, arms, now, locate(searchers))
    plain_dev = {one.collection.name: one.plain_dev for one in measured if one.plain_dev is not None}
    situation = Situation(library, tuple(experts), arms, plain_dev)
    compared = [compare(one.test, situation, one.plain_test) for one in measured]
    left_out = [compare(one.test, situation.without(one.collection.name), one.plain_test) for one in measured]
    rng = np.random.default_rng(request.seed)
    prepared = [i for i, one in enumerate(measured) if one.pilots is not None]
    mean, mean_prepared, mean_left_out = (
        arm_scores([found.scores for found in part], rng)
        for part in (compared, [compared[i] for i in prepared], [left_out[i] for i in prepared])
    )
    reports = {
        one.collection.name: collection_report(one, found, left, situation, rng)
        for one, found, left in zip(measured, compared, left_out, strict=True)
    }
    report = RetrievalReport(
        title=request.data.name,
        headline=headline(mean_prepared or mean, mean_left_out),
        command=request.command,
        created_at=now.isoformat(),
        library_version=library.manifest.version if library else "none",
        settings=settings_of(library.manifest) if library else {},
        experts=tuple(experts),
        arm_meaning=MEANING,
        mean=mean,
        mean_prepared=mean_prepared,
        mean_left_out=mean_left_out,
        collections=reports,
        losses=losses(reports),
        notes=notes(measured_skips=[(m.collection.name, m.collection.skipped) for m in measured]),
    )
    return report, library


def measure(
    searcher: Searcher,
    arms: Sequence[Arm],
    pilots: Mapping[str, Labelled],
    progress: Callable[[str], None],
) -> Measured:
    collection = searcher.collection
    progress(f"{collection.name}: dev and test queries")
    dev, test = collection.split("dev"), collection.split("test")
    return Measured(
        collection,
        pilots=pilots.get(collection.name),
        dev=label(searcher, dev, arms),
        test=label(searcher, test, arms),
        plain_dev=plain_fusions(searcher, dev),
        plain_test=plain_fusions(searcher, test),
    )


def fit(
    measured: Sequence[Measured],
    experts: dict[str, RetrievalExpert],
    arms: Sequence[Arm],
    now: datetime,
    located: dict[str, FloatArray],
) -> PilotLibrary | None:
    """The library of all train queries, with settings chosen on dev; None when there is no train query."""
    pilots = [one.pilots for one in measured if one.pilots is not None]
    if not pilots:
        return None
    fingerprints = {name: expert.fingerprint for name, expert in experts.items()}
    dev = [one.dev for one in measured if len(one.dev)]
    created_at = now.isoformat()
    library = extend_library(None, pilots, arms, fingerprints, created_at=created_at, located=located)
    return tuned(library, dev, fingerprints)


def settings_of(manifest: LibraryManifest) -> dict[str, Any]:
    """Settings by name, those of one expert a query with `single_` before the name."""
    single = manifest.single_settings
    plain = {} if single is None else single.model_dump(mode="json", exclude={"method"})
    return manifest.settings.model_dump(mode="json") | {f"single_{name}": value for name, value in plain.items()}


def collection_report(
    one: Measured, found: Compared, left: Compared, situation: Situation, rng: np.random.Generator
) -> CollectionReport:
    means = one.test.scores.mean(axis=0)
    count = len(found.decisions)
    shares = Counter(decision.name for decision in found.decisions)
    reasons = Counter(decision.reason.value for decision in found.decisions)
    return CollectionReport(
        documents=len(one.collection.documents),
        queries=len(one.test),
        labelled=0 if one.pilots is None else len(one.pilots),
        arms=arm_scores([found.scores], rng),
        left_out=arm_scores([left.scores], rng),
        experts={arm.name: round(float(mean), 4) for arm, mean in zip(situation.arms, means, strict=True)},
        shares={name: number / count for name, number in shares.most_common()},
        reasons={name: number / count for name, number in reasons.most_common()},
    )


def arm_scores(parts: Sequence[Scores], rng: np.random.Generator) -> dict[str, ArmScore]:
    """Arms that all parts have. The mean over queries of each collection, then over collections; queries are resampled
    within their collection (stratified), so the collections themselves are taken as given."""
    names = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    if not names:
        return {}
    columns = [np.stack([part[name] for name in names], axis=1).astype(np.float64) for part in parts]
    sampled = np.mean([bootstrap_means(values, rng, DRAWS) for values in columns], axis=0)
    means = np.mean([values.mean(axis=0) for values in columns], axis=0)
    base, coe = names.index("base"), names.index("coe")
    return {
        name: ArmScore(
            ndcg_at_10=float(means[i]),
            interval=percentile_interval(sampled[:, i]),
            gain=Estimate.of(means[i] - means[base], sampled[:, i] - sampled[:, base]),
            lead=Estimate.of(means[coe] - means[i], sampled[:, coe] - sampled[:, i]),
        )
        for i, name in enumerate(names)
    }
