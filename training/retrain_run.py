"""`coe retrain` from end to end: read, fit, compare, decide, promote."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from router.artifact import RouterArtifact
from router.build import build_encoder, load_router
from router.config import CoeConfig, load_config
from router.errors import ArtifactError
from router.pipeline import Router
from router.protocols import Encoder
from router.types import FloatArray
from training.datasets.decision_log import LogDataset, LoggedAnswer, read_log
from training.datasets.jsonl import read_seed
from training.first_fit import default_queries_folder, fit_request, usable_outcomes
from training.fit import embed, fit_router
from training.gate import GateResult, Verdict, judge
from training.progress import Progress, silent
from training.registry import Registry
from training.retrain import Contest, Evidence, gather_evidence, in_training
from training.split import split_of
from training.types import LabelledQuery, OutcomeTable


@dataclass(frozen=True)
class RetrainRequest:
    """What to retrain from.

    `queries` is a folder of labelled queries, None the seed set; `since` is in Unix seconds; `margin` is the largest
    tolerated loss of quality.
    """

    config: Path
    routers: Path
    outcomes: Path
    database_url: str
    queries: Path | None = None
    since: float = 0.0
    margin: float = 0.02
    is_dry_run: bool = False
    seed: int = 0


@dataclass(frozen=True)
class MapChange:
    """A category whose expert differs between the live router and the candidate."""

    category: str
    live: str
    candidate: str


@dataclass(frozen=True)
class RetrainResult:
    """What was read, compared and done. `gate` is None when the candidate is the live router itself."""

    log: LogDataset
    n_learned: int
    n_held_out: int
    n_outcomes: int
    live: str
    candidate: str
    changes: tuple[MapChange, ...]
    gate: GateResult | None
    is_promoted: bool
    reason: str


@dataclass(frozen=True)
class Sources:
    """Everything that was read."""

    config: CoeConfig
    queries: tuple[LabelledQuery, ...]
    outcomes: OutcomeTable
    log: LogDataset


def read_sources(request: RetrainRequest) -> Sources:
    """Raises ConfigError and DataError as the readers do."""
    config = load_config(request.config)
    queries = tuple(
        q for q in read_seed(request.queries or default_queries_folder()) if q.category in config.categories
    )
    return Sources(
        config, queries, usable_outcomes(config, request.outcomes), read_log(request.database_url, since=request.since)
    )


def run_retrain(request: RetrainRequest, *, now: datetime, progress: Progress = silent) -> RetrainResult:
    """Fits a candidate on everything that is not held out, and promotes it when the gate lets it.

    Raises:
        ArtifactError: there is no live router to compare with, or it is damaged.
        DataError: the log, the outcomes or the seed set cannot be used.
    """
    registry = Registry(request.routers)
    pointer = registry.live()
    if pointer is None:
        raise ArtifactError(f"{request.routers}: there is no live router to improve on; run `coe train` first")
    progress("reading the log, the feedback and the outcomes")
    sources = read_sources(request)
    encoder = build_encoder(sources.config.router.encoder)
    rng = np.random.default_rng(request.seed)
    evidence = gather_evidence(sources.outcomes, sources.log, sources.config.learned_categories)
    with tempfile.TemporaryDirectory(prefix="coe-candidate-") as scratch:
        candidate = fit_candidate(Path(scratch), sources, evidence, encoder, pointer.version, rng, now, progress)
        progress("comparing the candidate with the live router")
        contest = Contest(
            live=load_router(sources.config, registry.folder(pointer.version)),
            candidate=load_router(sources.config, Path(scratch) / candidate.manifest.version),
            rng=rng,
        )
        gate, reason = decide_promotion(request, sources, contest, evidence, encoder, progress)
        is_promoted = gate is not None and gate.verdict is Verdict.PROMOTE and not request.is_dry_run
        if is_promoted:
            registry.adopt(Path(scratch) / candidate.manifest.version)
            registry.promote(candidate.manifest.version, now)
    return RetrainResult(
        log=sources.log,
        n_learned=sum(in_training(answer) for answer in sources.log.used),
        n_held_out=sum(not in_training(answer) for answer in sources.log.used),
        n_outcomes=int(np.isfinite(sources.outcomes.scores).sum()),
        live=pointer.version,
        candidate=candidate.manifest.version,
        changes=map_changes(contest.live, contest.candidate),
        gate=gate,
        is_promoted=is_promoted,
        reason=reason + (" (dry run: nothing was promoted)" if request.is_dry_run else ""),
    )


def fit_candidate(
    root: Path,
    sources: Sources,
    evidence: Evidence,
    encoder: Encoder,
    parent: str,
    rng: np.random.Generator,
    now: datetime,
    progress: Progress,
) -> RouterArtifact:
    plain = fit_request(sources.config, sources.outcomes, sources.queries)
    request = replace(
        plain,
        evidence=evidence.matrix,
        parents=(parent,),
        data_fingerprints=dict(plain.data_fingerprints) | {"log": sources.log.fingerprint},
    )
    return fit_router(root, request, encoder, sources.queries, now=now, rng=rng, progress=progress)


def decide_promotion(
    request: RetrainRequest,
    sources: Sources,
    contest: Contest,
    evidence: Evidence,
    encoder: Encoder,
    progress: Progress,
) -> tuple[GateResult | None, str]:
    """The gate's result and the sentence that explains it."""
    if not map_changes(contest.live, contest.candidate) and not sources.log.used:
        return None, "declined: the log holds no decision with feedback, and nothing else changed the map"

    def vectors(texts: Sequence[str]) -> FloatArray:
        return embed(encoder, texts, progress)

    queries = [query for query in sources.queries if split_of(query.text) == "test"]
    answers = comparable_answers(sources.log, contest)
    gate = judge(
        contest.on_labels(queries, vectors([query.text for query in queries])),
        contest.on_outcomes(sources.outcomes, vectors(sources.outcomes.texts)),
        contest.on_log(answers, vectors([answer.text or "" for answer in answers]), evidence) if answers else None,
        margin=request.margin,
        cost_live_usd=mean_cost(contest.live),
        cost_candidate_usd=mean_cost(contest.candidate),
    )
    return gate, f"{gate.verdict}: {gate.reason}"


def comparable_answers(log: LogDataset, contest: Contest) -> list[LoggedAnswer]:
    """Held-out answers of experts and categories that both routers know, and whose text was kept."""
    experts = set(contest.live.experts) & set(contest.candidate.experts)
    categories = set(contest.live.categories) & set(contest.candidate.categories)
    return [
        answer
        for answer in log.used
        if not in_training(answer)
        and answer.text is not None
        and answer.expert in experts
        and answer.category in categories
    ]


def mean_cost(router: Router) -> float:
    """Mean cost of a query under the default policy, USD."""
    return float(router.policy("default").solution.used["cost_usd"])


def map_changes(live: Router, candidate: Router) -> tuple[MapChange, ...]:
    before, after = live.expert_of(), candidate.expert_of()
    return tuple(
        MapChange(category, before[category], after[category])
        for category in after
        if category in before and before[category] != after[category]
    )
