"""`coe retrain` from end to end: read, fit, compare, decide, promote."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from router.artifact import RouterArtifact, load_artifact
from router.build import expert_costs, load_router
from router.config import CoeConfig, load_config
from router.embedding_cache import CachedEncoder
from router.errors import ArtifactError, RouterError
from router.live_pointer import LivePointer
from router.pipeline import Router
from router.progress import Progress, silent
from router.protocols import Encoder
from router.quality import QualityMatrix
from router.types import FloatArray, Verdict
from training.carried_evidence import Carried, carried_over
from training.change_points import ChangePoint, find_change_points, is_outdated, is_stale
from training.crossfit import fit_twins
from training.datasets.outcome_folders import with_unmeasured
from training.evidence import Evidence, gather_evidence, logged_queries
from training.expert_map import row_numbers
from training.fit import embed, finish, prepare
from training.fit_inputs import (
    fit_request,
    judged_outcomes,
    labelled_queries,
    learned_outcomes,
    opened_encoder,
    usable_outcomes,
)
from training.gate import Comparison, GateResult, Terms, judge
from training.log_answers import AskedAnswers, drawn_rows, fetch_answers, sample_rows
from training.log_table import Known, LogTable, read_log_table
from training.new_experts import can_introduce, introduce, newcomers
from training.registry import Registry
from training.router_comparison import LogComparison, RouterComparison
from training.router_equivalence import decide_alike, decide_log_alike
from training.split import split_of
from training.types import LabelledQuery, OutcomeTable

MAX_LEARNED, MAX_JUDGED = 10_000, 20_000
"""Logged answers that a learned scorer is fitted on, and that a candidate is judged on; the map counts all of them.
More change neither a scorer nor an interval enough to be waited for (ours)."""

DEFAULT_TERMS = Terms(margin=0.02)

Guard = Callable[[], AbstractContextManager[None]]
"""Held around the moment of promotion; raises when somebody else may promote now."""


@dataclass(frozen=True)
class RetrainRequest:
    """What to retrain from.

    `queries` is a folder of labelled queries, None the seed set; `since` is in Unix seconds; `cache` a folder that
    keeps embeddings of labelled queries and graded prompts; `terms` what the gate demands.
    """

    config: Path
    routers: Path
    outcomes: Path
    database_url: str
    queries: Path | None = None
    since: float = 0.0
    terms: Terms = DEFAULT_TERMS
    is_dry_run: bool = False
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class MapChange:
    """A category whose expert differs between the live router and the candidate."""

    category: str
    live: str
    candidate: str


@dataclass(frozen=True)
class RetrainResult:
    """What was read, compared and done. `gate` is None when there was nothing to compare.

    `n_learned` and `n_held_out` count answers with feedback, and failures; `n_outdated` those of them from before a
    change of quality (`quality_changes`); `n_judged` held-out ones that were compared on; `estimates` what other
    estimators say of them.
    `introduced` are experts that the live router was given to explore, because nothing else can judge them; `carried`
    those that no outcome table grades, and of which the candidate knows what the live router knows.
    """

    log: LogTable
    n_learned: int
    n_held_out: int
    n_outdated: int
    n_judged: int
    n_outcomes: int
    n_outdated_grades: int
    quality_changes: tuple[ChangePoint, ...]
    live: str
    candidate: str
    changes: tuple[MapChange, ...]
    gate: GateResult | None
    estimates: tuple[Comparison, ...]
    is_promoted: bool
    introduced: tuple[str, ...]
    carried: tuple[str, ...]
    reason: str

    @property
    def n_failures(self) -> int:
        """Requests at which the expert failed, among those learned from and held out."""
        return int(self.log.is_failure.sum())


@dataclass(frozen=True)
class Sources:
    """Everything that was read, and the last changes of quality that the log shows. `outcomes` has a column without
    scores for every expert that is carried over."""

    config: CoeConfig
    queries: tuple[LabelledQuery, ...]
    outcomes: OutcomeTable
    carried: Carried | None
    log: LogTable
    changes: tuple[ChangePoint, ...]


@dataclass(frozen=True)
class Judgement:
    """What the comparison came to; `n_judged` logged answers were compared on."""

    gate: GateResult | None
    reason: str
    estimates: tuple[Comparison, ...] = ()
    n_judged: int = 0


def read_sources(request: RetrainRequest, live: RouterArtifact, progress: Progress) -> Sources:
    """Raises ConfigError and DataError as the readers do."""
    config = load_config(request.config)
    queries = labelled_queries(config, request.queries)
    graded = usable_outcomes(config, request.outcomes)
    carried = carried_over(config, live, graded.experts)
    outcomes = graded if carried is None else with_unmeasured(graded, carried.experts)
    known = Known(frozenset(config.policies), frozenset(config.experts), frozenset(config.categories))
    log = read_log_table(
        request.database_url, since=request.since, feedback=config.feedback, known=known, progress=progress
    )
    # An outage is no change of what an expert can do, and would make all that came before it worthless.
    return Sources(config, queries, outcomes, carried, log, find_change_points(log.rows(~log.is_failure)))


def run_retrain(
    request: RetrainRequest, *, now: datetime, progress: Progress = silent, guard: Guard = nullcontext
) -> RetrainResult:
    """Fits a candidate on everything that is not held out, and promotes it when the gate lets it.

    Raises:
        ArtifactError: there is no live router to compare with, or it is damaged.
        DataError: the log, the outcomes or the seed set cannot be used.
        LockLostError: `guard` found that another process may promote by now.
    """
    registry = Registry(request.routers)
    pointer = registry.live()
    if pointer is None:
        raise ArtifactError(f"{request.routers}: there is no live router to improve on; run `coe train` first")
    progress("reading the log, the feedback and the outcomes")
    sources = read_sources(request, load_artifact(registry.folder(pointer.version)), progress)
    encoder, rng = opened_encoder(sources.config.router.encoder, request.cache), np.random.default_rng(request.seed)
    learned = learned_outcomes(sources.outcomes)
    evidence = gather_evidence(
        learned, sources.log, sources.config.learned_categories, sources.changes, sources.carried
    )
    with tempfile.TemporaryDirectory(prefix="coe-candidate-") as scratch:
        candidate, twins = fit_candidate(
            Path(scratch), request, sources, evidence, encoder, pointer.version, rng, now, progress
        )
        progress("comparing the candidate with the live router")
        folder = Path(scratch) / candidate.manifest.version
        comparison = load_comparison(sources.config, registry.folder(pointer.version), folder, twins, evidence, rng)
        trial = trial_router(registry, pointer, sources.config)
        judged = find_equal(request, sources, comparison, trial, encoder, progress) or decide_promotion(
            request, sources, comparison, encoder, progress
        )
        is_promoted, reason = False, judged.reason
        if judged.gate is not None and judged.gate.verdict is Verdict.PROMOTE and not request.is_dry_run:
            is_promoted, reason = promote(registry, folder, pointer.version, reason, now, guard)
        introduced: tuple[str, ...] = ()
        if judged.gate is not None and judged.gate.verdict is Verdict.NEED_MORE and not request.is_dry_run:
            introduced, reason = introduce_newcomers(
                registry, Path(scratch), sources.config, comparison, pointer.version, reason, now, guard
            )
    log = sources.log
    return RetrainResult(
        log=log,
        n_learned=int((~log.is_held_out).sum()),
        n_held_out=int(log.is_held_out.sum()),
        n_outdated=int(
            np.where(log.is_held_out, is_outdated(log, sources.changes), is_stale(log, sources.changes)).sum()
        ),
        n_judged=judged.n_judged,
        n_outcomes=int(np.isfinite(sources.outcomes.scores).sum()),
        n_outdated_grades=evidence.n_outdated_grades,
        quality_changes=sources.changes,
        live=pointer.version,
        candidate=candidate.manifest.version,
        changes=map_changes(comparison.live, comparison.candidate),
        gate=judged.gate,
        estimates=judged.estimates,
        is_promoted=is_promoted,
        introduced=introduced,
        carried=() if sources.carried is None else sources.carried.experts,
        reason=reason + (" (dry run: nothing was promoted)" if request.is_dry_run else ""),
    )


def promote(
    registry: Registry, folder: Path, compared_with: str, reason: str, now: datetime, guard: Guard
) -> tuple[bool, str]:
    """Makes the candidate live, unless another router became live since the comparison, which says nothing of it."""
    with guard():
        live = registry.live()
        if live is None or live.version != compared_with:
            return False, f"declined: {live.version if live else 'no router'} became live during the comparison"
        registry.promote(registry.adopt(folder), now)
    return True, reason


def introduce_newcomers(
    registry: Registry,
    scratch: Path,
    config: CoeConfig,
    comparison: RouterComparison,
    live_version: str,
    reason: str,
    now: datetime,
    guard: Guard,
) -> tuple[tuple[str, ...], str]:
    """Lets the live router explore experts that it does not know, if it explores at all and its map stays the same."""
    live = load_artifact(registry.folder(live_version))
    names = newcomers(live, comparison.evidence)
    is_exploring = any(policy.exploration.epsilon > 0 for policy in config.policies.values())
    if not names or not is_exploring or not can_introduce(live, comparison.evidence):
        return (), reason
    version = introduce(scratch, live, comparison.evidence, now).manifest.version
    if load_router(config, scratch / version).expert_of() != comparison.live.expert_of():
        return (), reason
    is_promoted, said = promote(registry, scratch / version, live_version, reason, now, guard)
    if not is_promoted:
        return (), said
    return names, f"{reason}; {', '.join(names)} joins the live router to be explored (version {version})"


def load_comparison(
    config: CoeConfig,
    live: Path,
    candidate: Path,
    twins: Sequence[Path],
    evidence: Evidence,
    rng: np.random.Generator,
) -> RouterComparison:
    """All routers, loaded. Raises ArtifactError."""
    challenger = load_router(config, candidate)
    entries = [config.experts[name] for name in evidence.outcomes.experts]
    return RouterComparison(
        live=load_router(config, live),
        candidate=challenger,
        evidence=evidence,
        costs_usd=expert_costs(entries, evidence.matrix).cost_usd,
        rng=rng,
        twins=tuple(load_router(config, twin, challenger.encoder) for twin in twins),
    )


def fit_candidate(
    root: Path,
    request: RetrainRequest,
    sources: Sources,
    evidence: Evidence,
    encoder: Encoder,
    parent: str,
    rng: np.random.Generator,
    now: datetime,
    progress: Progress,
) -> tuple[RouterArtifact, tuple[Path, ...]]:
    """The candidate, and its twins where the grades that judge it are those that it is fitted on."""
    plain = fit_request(sources.config, evidence.outcomes, sources.queries)
    logged = None
    if plain.scorer.kind != "map" and len(sources.log):
        asked = learned_answers(request, sources, evidence, encoder, progress)
        logged = logged_queries(asked, evidence, plain.categories) if len(asked) else None
    wanted = replace(
        plain,
        evidence=evidence.matrix,
        outcomes=with_measured(evidence, sources.carried),
        logged=logged,
        parents=(parent,),
        data_fingerprints=dict(plain.data_fingerprints) | {"log": sources.log.fingerprint},
    )
    prepared = prepare(wanted, encoder, sources.queries, rng, progress)
    made = finish(root, wanted, encoder, prepared, now)
    if judged_outcomes(sources.outcomes)[1]:
        return made, ()
    progress("fitting it again without each tenth of the graded prompts")
    believed = evidence.outcomes

    def evidence_of(table: OutcomeTable) -> QualityMatrix:
        return gather_evidence(table, sources.log, plain.categories, sources.changes, sources.carried).matrix

    return made, fit_twins(root, wanted, encoder, prepared, believed, evidence_of, now)


def with_measured(evidence: Evidence, carried: Carried | None) -> OutcomeTable:
    """What a learned scorer is fitted on. A carried expert has no grades to learn from, so its column says of every
    prompt what was measured of the category."""
    table = evidence.outcomes
    if carried is None:
        return table
    known = evidence.matrix.quality[row_numbers(table, carried.rows[:-1])]
    is_carried = np.array([name in carried.experts for name in table.experts])
    return replace(table, scores=np.where(is_carried, known, table.scores).astype(np.float32))


def learned_answers(
    request: RetrainRequest, sources: Sources, evidence: Evidence, encoder: Encoder, progress: Progress
) -> AskedAnswers:
    """Logged answers of today's experts that a scorer may learn from; a key that says too much is thinned by lot."""
    log = sources.log
    rows = drawn_rows(log, evidence.counted)
    chosen = log.rows(sample_rows(log, rows, MAX_LEARNED))
    return fetch_answers(request.database_url, chosen, plain_encoder(encoder), progress)


def plain_encoder(encoder: Encoder) -> Encoder:
    """The encoder without its cache: what users wrote is not kept beside the log, where no erasure would find it."""
    return encoder.encoder if isinstance(encoder, CachedEncoder) else encoder


def trial_router(registry: Registry, pointer: LivePointer, config: CoeConfig) -> Router | None:
    """The router on trial; None without one, or where it cannot be loaded, which is for the gateways to say."""
    if pointer.trial is None:
        return None
    try:
        return load_router(config, registry.folder(pointer.trial.version))
    except RouterError:
        return None


def find_equal(
    request: RetrainRequest,
    sources: Sources,
    comparison: RouterComparison,
    trial: Router | None,
    encoder: Encoder,
    progress: Progress,
) -> Judgement | None:
    """The verdict on a candidate that decides like the live router, or like the one on trial; None where it differs.

    An empty log is left to `decide_promotion`, which has a better reason to decline.
    """
    graded, _ = judged_outcomes(sources.outcomes)
    texts = [*(query.text for query in sources.queries), *graded.texts]
    embeddings = embed(encoder, texts, progress)
    rivals = {"the live router": comparison.live} if len(sources.log) else {}
    if trial is not None:
        rivals[f"router {trial.version}, which is on trial"] = trial
    equal = {name: one for name, one in rivals.items() if decide_alike(one, comparison.candidate, texts, embeddings)}
    if not equal:
        return None
    rows = np.flatnonzero(sources.log.expert_in(comparison.candidate.experts) >= 0)
    log = sources.log.rows(sample_rows(sources.log, rows, MAX_JUDGED))
    asked = fetch_answers(request.database_url, log, plain_encoder(encoder), progress)
    for name, one in equal.items():
        if decide_log_alike(one, comparison.candidate, asked):
            n = f"{len(sources.queries)} labelled, {len(graded.texts)} graded and {len(asked)} logged queries"
            return Judgement(None, f"declined: changes nothing, for it decides like {name} on {n}")
    return None


def decide_promotion(
    request: RetrainRequest, sources: Sources, comparison: RouterComparison, encoder: Encoder, progress: Progress
) -> Judgement:
    """The gate's result and the sentence that explains it."""
    if not map_changes(comparison.live, comparison.candidate) and not len(sources.log):
        return Judgement(None, "declined: the log holds no decision with feedback, and nothing else changed the map")

    def vectors(texts: Sequence[str]) -> FloatArray:
        return embed(encoder, texts, progress)

    queries = [query for query in sources.queries if split_of(query.text) == "test"]
    graded, is_held_out = judged_outcomes(sources.outcomes)
    asked = vectors(graded.texts)
    on_outcomes = comparison.on_outcomes(graded, asked, is_held_out=is_held_out)
    crossed = None if is_held_out else comparison.crossed(graded, asked)
    on_log, n_judged = judge_on_log(request, sources, comparison, encoder, progress)
    costs = mean_costs(comparison) if on_log is None else on_log.costs_usd
    gate = judge(
        comparison.on_labels(queries, vectors([query.text for query in queries])),
        on_outcomes,
        None if on_log is None else on_log.doubly_robust,
        terms=replace(request.terms, decisions_per_row=sources.log.n_rows / max(n_judged, 1)),
        cost_live_usd=costs[0],
        cost_candidate_usd=costs[1],
        crossed=crossed,
    )
    return Judgement(gate, f"{gate.verdict}: {gate.reason}", on_log.others if on_log else (), n_judged)


def judge_on_log(
    request: RetrainRequest, sources: Sources, comparison: RouterComparison, encoder: Encoder, progress: Progress
) -> tuple[LogComparison | None, int]:
    """The comparison on held-out answers that say what both routers are worth now, and how many those are."""
    rows, share = judged_rows(sources.log, sources.changes, comparison)
    kept = sample_rows(sources.log, rows, MAX_JUDGED)
    asked = fetch_answers(request.database_url, sources.log.rows(kept), plain_encoder(encoder), progress)
    if not len(asked):
        return None, 0
    position = {bytes(name): row for name, row in zip(sources.log.ids[kept], kept, strict=True)}
    return comparison.on_log(asked, share[[position[bytes(name)] for name in asked.log.ids]]), len(asked)


def judged_rows(
    log: LogTable, changes: tuple[ChangePoint, ...], comparison: RouterComparison
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Held-out rows that judge, and for every row of the log how many queries of the traffic it stands for.

    A category whose quality changed keeps only what came after, so its few answers stand for more queries each.
    """
    common = tuple(name for name in comparison.live.experts if name in comparison.candidate.experts)
    held_out = log.is_held_out & (log.expert_in(common) >= 0)
    kept = held_out & ~is_outdated(log, changes)
    share = log.weight.copy()
    for number in np.unique(log.category[kept]):
        inside = log.category == number
        share[inside] *= log.weight[held_out & inside].sum() / log.weight[kept & inside].sum()
    return np.flatnonzero(kept), share


def mean_costs(comparison: RouterComparison) -> tuple[float, float]:
    """Mean cost of a query under the default policies, USD."""
    live, candidate = (
        float(router.policy("default").solution.used["cost_usd"]) for router in (comparison.live, comparison.candidate)
    )
    return live, candidate


def map_changes(live: Router, candidate: Router) -> tuple[MapChange, ...]:
    before, after = live.expert_of(), candidate.expert_of()
    return tuple(
        MapChange(category, before[category], after[category])
        for category in after
        if category in before and before[category] != after[category]
    )
