"""`coe retrain` from end to end: read, fit, compare, decide, promote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from coe.base.errors import ArtifactError
from coe.cli.progress import Progress, silent
from coe.fleet.router_registry import LiveChangedError, PromotionGuard, Registry
from coe.router.artifact import RouterArtifact, load_artifact, written
from coe.router.build import configured_router, expert_costs
from coe.router.config import load_config
from coe.router.pipeline import Router
from coe.router.types import Metric, Verdict
from coe.training.candidate import FittedModel, Judgement, decide_promotion, fit_candidate
from coe.training.change_points import ChangePoint, is_stale
from coe.training.evidence import Evidence
from coe.training.failover import can_renew, find_renewal, joined, renew
from coe.training.fit_inputs import RetrainInputs, RetrainRequest, read_inputs
from coe.training.gate import GateResult
from coe.training.log_table import LogTable
from coe.training.router_comparison import CrossFitted, MapChange, RouterComparison, map_changes


@dataclass(frozen=True)
class RetrainResult:
    """Report of a retraining: what was read, compared and done.

    `n_judged` answers were compared on, of those of the log; `changes` are of the map, by `candidate`, whose figures
    are `metrics`. `introduced` are experts that the live router was given to explore, because nothing else can judge
    them.
    `is_mix_followed`: the candidate's stage 1 expects the traffic's mix of categories.
    """

    log: LogTable
    quality_changes: tuple[ChangePoint, ...]
    n_judged: int
    n_outcomes: int
    n_outdated_grades: int
    live: str
    candidate: str
    metrics: Mapping[str, Metric]
    is_mix_followed: bool
    changes: tuple[MapChange, ...]
    gate: GateResult
    is_promoted: bool
    introduced: tuple[str, ...]
    reason: str

    @property
    def n_learned(self) -> int:
        """Answers with feedback, and failures."""
        return len(self.log)

    @property
    def n_outdated(self) -> int:
        """Those of them from before a change of quality."""
        return int(is_stale(self.log, self.quality_changes).sum())

    @property
    def n_failures(self) -> int:
        """Those of them at which the expert failed."""
        return int(self.log.is_failure.sum())


@dataclass(frozen=True)
class Outcome:
    """End of a retraining: whether the candidate became live, or the live router was given what it knows (then no
    estimate of more decisions holds: queries are answered otherwise from now on), which experts are new to it, and
    why."""

    reason: str
    is_promoted: bool = False
    is_renewed: bool = False
    introduced: tuple[str, ...] = ()


@dataclass(frozen=True)
class Succession:
    """The place of the live router, which only one that was compared with it may take."""

    registry: Registry
    live: RouterArtifact
    now: datetime
    guard: PromotionGuard

    @property
    def is_on_trial(self) -> bool:
        """A router is on trial, and compared with what is live now; or none is live any more."""
        pointer = self.registry.live()
        return pointer is None or pointer.trial is not None

    def promote(self, artifact: RouterArtifact) -> str:
        """Makes a router live, unless another became live since the comparison, which says nothing of that one: the
        reason why it was not, empty where it was."""
        with self.guard():
            version = written(self.registry.root, artifact).manifest.version
            try:
                self.registry.promote(version, self.now, instead_of=self.live.manifest.version)
            except LiveChangedError as error:
                return f"declined: {error} during the comparison"
        return ""


def run_retrain(
    request: RetrainRequest, *, now: datetime, progress: Progress = silent, guard: PromotionGuard = nullcontext
) -> RetrainResult:
    """Fits a candidate on everything that is not held out, and promotes it when the gate lets it.

    Raises:
        ArtifactError: there is no live router to compare with, or it is damaged.
        DataError, StoreError: the log, the outcomes or the seed set cannot be used.
        LockLostError: `guard` found that another process may promote by now.
    """
    registry = Registry(request.routers)
    pointer = registry.live()
    if pointer is None:
        raise ArtifactError(f"{request.routers}: there is no live router to improve on; run `coe train` first")
    place = Succession(registry, load_artifact(registry.folder(pointer.version)), now, guard)
    config = load_config(request.config)
    live = configured_router(config, place.live)  # first: one that cannot be compared costs no fit
    progress("reading the log, the feedback and the outcomes")
    inputs = read_inputs(request, config, place.live, live, now=now, progress=progress)
    evidence = inputs.evidence()
    candidate, cross_fitted = fit_candidate(inputs, evidence, pointer.version)
    progress("comparing the candidate with the live router")
    comparison = compared(inputs, live, candidate, cross_fitted, evidence)
    judged = decide_promotion(inputs, comparison)
    outcome = act(judged, inputs, comparison, place, candidate)
    return result_of(inputs, comparison, candidate, judged, outcome)


def compared(
    inputs: RetrainInputs,
    live: Router,
    candidate: RouterArtifact,
    cross_fitted: Sequence[FittedModel],
    evidence: Evidence,
) -> RouterComparison:
    """The live router beside the candidate and its cross-fitted models; those never serve, so they explore nothing."""
    config, encoder = inputs.config, live.encoder
    policies = {name: policy.model_copy(update={"exploration": 0.0}) for name, policy in config.policies.items()}
    judging = config.model_copy(update={"policies": policies})
    entries = [config.experts[name] for name in evidence.outcomes.experts]
    return RouterComparison(
        live=live,
        candidate=configured_router(config, candidate, encoder),
        evidence=evidence,
        costs_usd=expert_costs(entries, evidence.matrix).cost_usd,
        rng=inputs.rng,
        cross_fitted=tuple(
            CrossFitted(configured_router(judging, fitted.artifact, encoder), fitted.evidence)
            for fitted in cross_fitted
        ),
    )


def act(
    judged: Judgement,
    inputs: RetrainInputs,
    comparison: RouterComparison,
    place: Succession,
    candidate: RouterArtifact,
) -> Outcome:
    """Promotes the candidate, or renews the live router, as the gate said."""
    if inputs.request.is_dry_run:
        return Outcome(f"{judged.gate.sentence} (dry run: nothing was promoted)")
    if judged.gate.verdict is Verdict.PROMOTE:
        refused = place.promote(candidate)
        return Outcome(refused or judged.gate.sentence, is_promoted=not refused)
    renewal = None if place.is_on_trial else renewal_of(place.live, inputs, comparison, judged)
    if renewal is None:
        return Outcome(judged.gate.sentence)
    if refused := place.promote(renewal.artifact):
        return Outcome(refused)
    version, gate = renewal.artifact.manifest.version, judged.gate
    reason = f"{renewal.words} (version {version}). The candidate as a whole: {gate.verdict}: {gate.reason}"
    return Outcome(reason, is_renewed=True, introduced=renewal.introduced)


@dataclass(frozen=True)
class Renewal:
    """The live router with what the candidate knows, the experts that are new to it, and what it does differently."""

    artifact: RouterArtifact
    introduced: tuple[str, ...]
    words: str


def renewal_of(
    live: RouterArtifact, inputs: RetrainInputs, comparison: RouterComparison, judged: Judgement
) -> Renewal | None:
    """None where there is nothing to renew (training.failover), or the live map does not take newer evidence."""
    evidence = comparison.evidence
    if not can_renew(live, inputs.config.learned_categories):
        return None

    def with_rows(rows: Sequence[int]) -> tuple[RouterArtifact, Router]:
        made = renew(live, evidence, rows)
        return made, configured_router(inputs.config, made, comparison.live.encoder)

    terms, evidence_of = inputs.request.terms, inputs.evidence
    made, words = find_renewal(
        comparison, judged.new_experts, inputs.changes, terms, inputs.log, with_rows, evidence_of
    )
    if made is None:
        return None
    is_exploring = any(policy.exploration > 0 for policy in inputs.config.policies.values())
    names = tuple(name for name in evidence.outcomes.experts if name not in live.manifest.experts and is_exploring)
    joining = f"{', '.join(names)} joins the live router to be explored" if names else ""
    return Renewal(made, names, joined(words, joining) or "explores by newer evidence")


def result_of(
    inputs: RetrainInputs,
    comparison: RouterComparison,
    candidate: RouterArtifact,
    judged: Judgement,
    outcome: Outcome,
) -> RetrainResult:
    """Reports what was read, and what came of it."""
    return RetrainResult(
        log=inputs.log,
        quality_changes=inputs.changes,
        n_judged=judged.n_judged,
        n_outcomes=int(np.isfinite(inputs.outcomes.scores).sum()),
        n_outdated_grades=comparison.evidence.n_outdated_grades,
        live=comparison.live.version,
        candidate=candidate.manifest.version,
        metrics=candidate.manifest.metrics,
        is_mix_followed=comparison.candidate.mix is not None,
        changes=map_changes(comparison.live, comparison.candidate),
        gate=replace(judged.gate, more_decisions=None) if outcome.is_renewed else judged.gate,
        is_promoted=outcome.is_promoted,
        introduced=outcome.introduced,
        reason=outcome.reason,
    )
