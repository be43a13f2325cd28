"""Measures every expert on every collection, fits the pilot library on train, chooses on dev, reports on test."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from eval.retrieval.added import cost_of_adding
from eval.retrieval.arms import MEANING, Compared, compare
from eval.retrieval.intervals import arm_scores
from eval.retrieval.latency import measure_latency
from eval.retrieval.request import RetrievalRequest, requested_experts
from eval.retrieval.retrieval_records import CollectionReport, LostQuery, RetrievalReport
from eval.retrieval.sentences import headline, losses, notes
from eval.retrieval.situation import Situation
from eval.retrieval.top_two import best_lead, searched_once, top_two
from retrieval.build_experts import build_experts
from retrieval.routing.pilot_library import LibraryManifest, PilotLibrary
from retrieval.training.build_library import build_library
from retrieval.training.collection import Collection, find_collections, read_collection
from retrieval.training.labels import Labelled, label, label_pilots, locate, unseen_share
from retrieval.training.routing_tuning import tuned
from retrieval.training.searcher import Searcher, all_arms
from retrieval.types import BASE, Arm, RetrievalExpert
from router.errors import DataError
from router.types import FloatArray

LOST = 10


@dataclass(frozen=True)
class Measured:
    """One collection: labelled train queries for pilots, dev and test queries, all over the same arms. `multitask` (n,)
    are test scores of the adapter of all collections, which is compared with and not routed to: with it no collection
    could be left out."""

    collection: Collection
    pilots: Labelled | None
    dev: Labelled
    test: Labelled
    multitask: FloatArray | None


def run_retrieval(
    request: RetrievalRequest, *, now: datetime, progress: Callable[[str], None]
) -> tuple[RetrievalReport, PilotLibrary | None]:
    """The report, and the pilot library that it measured; None without train queries.

    Raises:
        DataError: a collection cannot be read, or none has test queries. ConfigError, ArtifactError: of the experts.
    """
    config, root = requested_experts(request.experts)
    everyone = build_experts(config, root, secrets=os.environ)
    experts = {name: expert for name, expert in everyone.items() if name != request.multitask}
    arms = all_arms(experts)
    collections = [read_collection(folder) for folder in find_collections(request.data)]
    share = unseen_share(everyone)
    searchers = [Searcher(each, everyone, request.cache, progress) for each in collections if len(each.split("test"))]
    if not searchers:
        raise DataError(f"{request.data}: no collection has test queries; expected qrels/test.tsv")
    pilots, arms = label_pilots(searchers, arms, share)
    pilots_of = {part.collection: part for part in pilots}
    measured = [measure(each, arms, pilots_of, request.multitask, progress) for each in searchers]
    progress("choosing settings on dev")
    library = fit(measured, experts, arms, now, locate(searchers, share))
    situation = Situation(library, tuple(experts), arms)
    compared, left_out = compare_all(searchers, measured, situation)
    progress("measuring latency")
    latency = measure_latency(experts, library, searchers)
    rng = np.random.default_rng(request.seed)
    prepared = [i for i, one in enumerate(measured) if one.pilots is not None]
    mean = arm_scores([found.scores for found in compared], rng)
    reports = {
        one.collection.name: collection_report(one, found, left, situation, rng)
        for one, found, left in zip(measured, compared, left_out, strict=True)
    }
    added = cost_of_adding([one.test for one in measured], situation)
    report = RetrievalReport(
        title=request.data.name,
        headline=headline(mean),
        command=request.command,
        created_at=now.isoformat(),
        library_version=library.manifest.version if library else "none",
        settings=settings_of(library.manifest) if library else {},
        experts=tuple(experts),
        arm_meaning=MEANING,
        mean=mean,
        mean_prepared=arm_scores([compared[i].scores for i in prepared], rng),
        mean_left_out=arm_scores([left_out[i].scores for i in prepared], rng),
        collections=reports,
        added=added,
        losses=losses(reports),
        lost=lost_queries(measured, compared),
        latency=latency,
        notes=notes(measured_skips=[(m.collection.name, m.collection.skipped) for m in measured]),
    )
    return report, library


def compare_all(
    searchers: Sequence[Searcher], measured: Sequence[Measured], situation: Situation
) -> tuple[list[Compared], list[Compared]]:
    """Every collection with all that is known, and as if nobody had prepared for it."""
    pairs = list(zip(searchers, measured, strict=True))
    dev = [top_two(searched_once(searcher, one.dev), one.dev, situation) for searcher, one in pairs]
    lead = best_lead([found for found in dev if found is not None])
    compared, left_out = [], []
    for searcher, one in pairs:
        without, rankings = situation.without(one.collection.name), searched_once(searcher, one.test)
        two, two_without = (top_two(rankings, one.test, known) for known in (situation, without))
        compared.append(compare(one.test, situation, one.multitask, two.scores(lead) if two else None))
        left_out.append(compare(one.test, without, None, two_without.scores(lead) if two_without else None))
    return compared, left_out


def measure(
    searcher: Searcher,
    arms: Sequence[Arm],
    pilots: Mapping[str, Labelled],
    multitask: str,
    progress: Callable[[str], None],
) -> Measured:
    collection = searcher.collection
    progress(f"{collection.name}: dev and test queries")
    test, alone = collection.split("test"), [Arm(members=(multitask,), weights=(1.0,))]
    return Measured(
        collection,
        pilots=pilots.get(collection.name),
        dev=label(searcher, collection.split("dev"), arms),
        test=label(searcher, test, arms),
        multitask=searcher.arm_scores(test, alone)[:, 0] if multitask in searcher.experts else None,
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
    library = build_library(pilots, arms, fingerprints, created_at=created_at, located=located)
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
    shares = Counter(decision.arm.name for decision in found.decisions)
    reasons = Counter(decision.reason.value for decision in found.decisions)
    return CollectionReport(
        documents=len(one.collection.documents),
        queries=len(one.test),
        labelled=0 if one.pilots is None else len(one.pilots),
        arms=arm_scores([found.scores], rng),
        absent=found.absent,
        left_out=arm_scores([left.scores], rng),
        experts={arm.name: round(float(mean), 4) for arm, mean in zip(situation.arms, means, strict=True)},
        shares={name: number / count for name, number in shares.most_common()},
        reasons={name: number / count for name, number in reasons.most_common()},
    )


def lost_queries(measured: Sequence[Measured], compared: Sequence[Compared]) -> tuple[LostQuery, ...]:
    """The queries that coe served worse than base by the most."""
    found = []
    for one, arms in zip(measured, compared, strict=True):
        change = arms.scores["coe"] - arms.scores[BASE]
        for row in np.argsort(change, kind="stable")[:LOST]:
            if change[row] < 0:
                decision = arms.decisions[row]
                found.append(
                    LostQuery(
                        collection=one.collection.name,
                        query_id=one.test.queries.ids[row],
                        text=one.test.queries.texts[row][:200],
                        arm=decision.arm.name,
                        ndcg_at_10=float(arms.scores["coe"][row]),
                        base=float(arms.scores[BASE][row]),
                    )
                )
    found.sort(key=lambda lost: lost.ndcg_at_10 - lost.base)
    return tuple(found[:LOST])
