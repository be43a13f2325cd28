"""The refresh of the pilot library from feedback on searches of vector stores: export, label, compare, replace."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from scipy.stats import t as student_t

from coe.cli.progress import Progress, silent
from coe.decision_log.database import Database
from coe.fleet.router_registry import PromotionGuard
from coe.retrieval.build_experts import build_experts, first_lexical, pilots_folder
from coe.retrieval.routing.pilot_library import PilotLibrary, is_library, load_library, save_library
from coe.retrieval.routing.pilot_router import build_router
from coe.retrieval.stores.export import export_all
from coe.retrieval.training.build_library import extend_library, require_same_experts, without_data_set
from coe.retrieval.training.collection import Collection, find_collections, read_collection
from coe.retrieval.training.held_out import HELD_OUT, MOST_HELD_OUT
from coe.retrieval.training.labels import (
    Labelled,
    any_trained,
    label_collections,
    label_pilots,
    pilot_queries,
    query_key,
    unseen_queries,
)
from coe.retrieval.training.routing_tuning import chosen_scores
from coe.retrieval.training.searcher import DocumentMemory, Searcher, all_arms
from coe.retrieval.types import BASE, Arm, RetrievalExpert
from coe.router.config.retrieval import RetrievalConfig
from coe.router.types import Float64Array, Metric, Verdict

MIN_TRAIN, MIN_DEV = 20, 10
"""Queries with feedback, over all stores, to learn from and to judge by (our choice): fewer give only noise."""

MARGIN = 0.02
"""Largest loss of mean nDCG@10 that the interval of the difference may contain (our choice)."""

DEV_SHARE = 0.2
"""Share of exported queries that `coe retrieval export` puts into dev."""

Export = Callable[[Path], Mapping[str, int]]
"""A function that writes collections into a folder, one sub-folder each, and returns what was left out, by reason."""


@dataclass(frozen=True)
class RefreshRequest:
    """The input of a refresh.

    Args:
        section: of experts.yaml.
        root: folder of experts.yaml.
        export: writes the stores with feedback.
        memory: folder of document vectors, kept between refreshes; None encodes them each time.
    """

    section: RetrievalConfig
    root: Path
    export: Export
    is_dry_run: bool = False
    memory: Path | None = None


@dataclass(frozen=True)
class PilotRefresh:
    """A round of refreshing: the queries read, the comparison, and the decision.

    `n_train` queries of `stores` were labelled and `n_dev` judged; `dropped` counts what was left out, by reason.
    `before` and `after` are mean nDCG@10 of the dev queries under the current and the refreshed library. `difference`
    is their paired difference; None without a comparison. `old` and `new` are the versions, None without a library.
    `more_searches` estimates how many more searches with feedback are needed, if that is the reason.
    """

    verdict: Verdict
    reason: str
    stores: int = 0
    n_train: int = 0
    n_dev: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    before: float | None = None
    after: float | None = None
    old: str | None = None
    new: str | None = None
    more_searches: int | None = None
    is_promoted: bool = False
    difference: Metric | None = None


def refresh_pilots(
    request: RefreshRequest, *, now: datetime, progress: Progress = silent, guard: PromotionGuard = nullcontext
) -> PilotRefresh | None:
    """Label the stores' queries with every expert, and replace the library if its choices are no worse on dev queries.

    Routing settings stay. A store's queries in the library become those that the log has now.

    Returns:
        None if the section names no library.

    Raises:
        DataError: the export failed, or an expert is not the one that the library measured.
        ArtifactError: the library is damaged, or an expert was trained for another base.
        ConfigError, MissingWeightsError, MissingExtraError, BackendError: an expert cannot be used.
        LockLostError: `guard` found that another process may promote by now.
    """
    folder = pilots_folder(request.section, request.root)
    if folder is None:
        return None
    old = load_library(folder) if is_library(folder) else None
    with tempfile.TemporaryDirectory(prefix="coe-pilots-") as scratch:
        progress("exporting the vector stores that have feedback")
        folder_of_stores = Path(scratch) / "collections"
        dropped = Counter(request.export(folder_of_stores))
        collections = (
            [read_collection(each) for each in find_collections(folder_of_stores)] if folder_of_stores.exists() else []
        )
        version = None if old is None else old.manifest.version
        found = PilotRefresh(Verdict.NEED_MORE, "", stores=len(collections), dropped=dropped, old=version)
        if not collections:
            return needs_more(found, is_trained=False)
        progress("loading the retrieval experts")
        experts = build_experts(request.section, request.root)
        if old is not None:
            require_same_experts(old, {name: expert.fingerprint for name, expert in experts.items()})
        is_trained = any_trained(experts)
        found = with_counts(found, collections, is_trained=is_trained)
        if found.n_train < MIN_TRAIN or found.n_dev < MIN_DEV:
            return needs_more(found, is_trained=is_trained)
        if old is not None and holds(old, collections, all_arms(experts), is_trained=is_trained):
            return replace(found, verdict=Verdict.DECLINE, reason="declined: the library holds every query already")
        # Vectors of people's queries go with the scratch folder: kept, an erasure would not find them.
        library, dev, arms = remeasured(request, old, collections, experts, Path(scratch) / "embeddings", now, progress)
    served = [scores_served(each, arms, dev, experts) for each in (old, library)]
    before, after = (float(scores.mean()) for scores in served)
    difference = paired_mean(served[1] - served[0])
    found = replace(found, before=before, after=after, difference=difference, new=library.manifest.version)
    refusal = refused(found, before, after)
    if refusal is not None:
        return refusal
    if request.is_dry_run:
        return replace(found, verdict=Verdict.PROMOTE, reason="promote (dry run: nothing was written)")
    return take_over(found, library, folder, guard)


def with_counts(found: PilotRefresh, collections: Sequence[Collection], *, is_trained: bool) -> PilotRefresh:
    """Return the refresh with the numbers of pilot and dev queries, and of queries without a label."""
    return replace(
        found,
        dropped=Counter(found.dropped) + unlabelled(collections, is_trained=is_trained),
        n_train=sum(len(pilot_queries(each, is_trained=is_trained)) for each in collections),
        n_dev=sum(len(each.split("dev")) for each in collections),
    )


def export_stores(database_url: str, since: float, unheard: Set[str], folder: Path) -> Counter[str]:
    """Write each store with usable feedback into a folder of its id; return what was left out, by reason.

    Args:
        since: Unix seconds; older searches are not read.
        unheard: ids of keys whose feedback is ignored.

    Raises:
        DataError, StoreError: the stores or the feedback cannot be read.
    """
    with closing(Database(database_url)) as store:
        exported = export_all(store, folder, since, unheard)
    return sum((each.left_out for each in exported.values()), Counter())


def remeasured(
    request: RefreshRequest,
    old: PilotLibrary | None,
    collections: Sequence[Collection],
    experts: Mapping[str, RetrievalExpert],
    cache: Path,
    now: datetime,
    progress: Progress,
) -> tuple[PilotLibrary, list[Labelled], tuple[Arm, ...]]:
    """Return the library with the stores' current queries, the labelled dev queries, and the arms of their scores.

    The arms are those of both libraries. Errors are those of `refresh_pilots`.
    """
    fingerprints = {name: expert.fingerprint for name, expert in experts.items()}
    memory = None if request.memory is None or request.is_dry_run else DocumentMemory(request.memory)
    if memory is not None:
        memory.begin()
    searchers = [Searcher(collection, experts, cache, progress, memory) for collection in collections]
    kept = old
    for collection in collections:
        kept = kept and without_data_set(kept, collection.name)
    labelled, arms = label_pilots(searchers, all_arms(experts), () if kept is None else kept.arms)
    library = extend_library(kept, labelled, arms, fingerprints, created_at=now.isoformat())
    compared = tuple(dict.fromkeys([*library.arms, *(() if old is None else old.arms)]))
    dev = label_collections(searchers, compared, lambda each: each.split("dev"))
    if memory is not None:
        memory.keep()
    return library, dev, compared


def take_over(found: PilotRefresh, library: PilotLibrary, folder: Path, guard: PromotionGuard) -> PilotRefresh:
    """Store the library, unless another one was written since the comparison, which does not apply to it."""
    with guard():
        there = load_library(folder).manifest.version if is_library(folder) else None
        if there != found.old:
            return replace(
                found, verdict=Verdict.DECLINE, reason=f"declined: {there} was written during the comparison"
            )
        save_library(library, folder)
    return replace(found, verdict=Verdict.PROMOTE, reason="promote: no worse on held-out queries", is_promoted=True)


def needs_more(found: PilotRefresh, *, is_trained: bool) -> PilotRefresh:
    """Return the refresh with an estimate of how many more searches with feedback are needed."""
    share = HELD_OUT if is_trained else 1.0  # of train queries that can be labelled
    more = max(
        math.ceil((MIN_TRAIN - found.n_train) / ((1 - DEV_SHARE) * share)),
        math.ceil((MIN_DEV - found.n_dev) / DEV_SHARE),
    )
    return replace(
        found, verdict=Verdict.NEED_MORE, reason=f"need about {more} more searches with feedback", more_searches=more
    )


def unlabelled(collections: Sequence[Collection], *, is_trained: bool) -> Counter[str]:
    """Return the numbers of train queries that are not labelled, by reason."""
    left_out: Counter[str] = Counter()
    for collection in collections:
        unseen = len(unseen_queries(collection, is_trained=is_trained))
        left_out["queries that experts may have been trained on"] += len(collection.split("train")) - unseen
        left_out[f"queries beyond {MOST_HELD_OUT} of one store"] += max(0, unseen - MOST_HELD_OUT)
    return left_out


def holds(library: PilotLibrary, collections: Sequence[Collection], arms: Sequence[Arm], *, is_trained: bool) -> bool:
    """Return whether the library's queries of these stores are the exported ones, each measured under all arms."""
    if not set(arms) <= set(library.arms):
        return False
    names = library.manifest.data_sets
    rows = np.isin(library.data_set, [names.index(each.name) for each in collections if each.name in names])
    columns = [library.arms.index(arm) for arm in arms]
    pilots = [(each.name, pilot_queries(each, is_trained=is_trained)) for each in collections]
    exported = {query_key(store, name) for store, queries in pilots for name in queries.ids}
    return set(library.keys[rows].tolist()) == exported and bool(library.measured[rows][:, columns].all())


def scores_served(
    library: PilotLibrary | None,
    arms: Sequence[Arm],
    queries: Sequence[Labelled],
    experts: Mapping[str, RetrievalExpert],
) -> Float64Array:
    """Return nDCG@10 (n,) of queries, scored under `arms`, by the choices of a library, or of a gateway without one."""
    router = build_router(
        library, base_fingerprint=experts[BASE].fingerprint, experts=experts, lexical=first_lexical(experts)
    )
    return np.concatenate([chosen_scores(router, arms, each) for each in queries]).astype(np.float64)


def paired_mean(differences: Float64Array) -> Metric:
    """Return the mean of paired differences (n,) with Student's 95% interval."""
    n, mean = len(differences), float(differences.mean())
    half = float(student_t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n))
    return Metric.within(mean - half, mean, mean + half, n)


def refused(found: PilotRefresh, before: float, after: float) -> PilotRefresh | None:
    """Return the refresh as declined if quality fell, as needing more if it is uncertain, else None."""
    difference = found.difference
    assert difference is not None, "it was compared"
    assert difference.interval is not None, "every paired mean has one"
    low, high = difference.interval.low, difference.interval.high
    if after < before - 1e-9:
        reason = f"declined: mean nDCG@10 of {found.n_dev} held-out queries would fall from {before:.3f} to {after:.3f}"
        return replace(found, verdict=Verdict.DECLINE, reason=reason)
    if low > -MARGIN:
        return None
    half = (high - low) / 2
    more = math.ceil(found.n_dev * ((half / (difference.value + MARGIN)) ** 2 - 1) / DEV_SHARE)
    reason = (
        f"need about {more} more searches with feedback: mean nDCG@10 changes by {difference.value:+.3f} "
        f"[{low:+.3f}, {high:+.3f}], too uncertain for the margin {MARGIN:g}"
    )
    return replace(found, verdict=Verdict.NEED_MORE, reason=reason, more_searches=more)
