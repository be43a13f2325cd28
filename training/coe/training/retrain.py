"""`coe retrain` from end to end: read, fit, compare, decide, promote."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from coe.base.errors import ArtifactError
from coe.cli.progress import Progress, silent
from coe.fleet.router_registry import LiveChangedError, PromotionGuard, Registry
from coe.router.artifact import load_artifact
from coe.router.build import configured_router, expert_costs, load_router
from coe.router.config import load_config
from coe.router.pipeline import Router
from coe.router.types import Metric, Verdict
from coe.training.candidate import FittedModel, Judgement, MapChange, decide_promotion, fit_candidate, map_changes
from coe.training.category_mix import MIX_MOVED
from coe.training.change_points import ChangePoint, is_stale
from coe.training.evidence import Evidence
from coe.training.failover import can_renew, find_renewal, joined, renew
from coe.training.fit_inputs import RetrainInputs, RetrainRequest, read_inputs
from coe.training.gate import GateResult
from coe.training.log_table import LogTable
from coe.training.router_comparison import CrossFitted, Newcomers, RouterComparison


@dataclass(frozen=True)
class RetrainResult:
    """Report of a retraining: what was read, compared and done.

    `n_learned` counts answers with feedback, and failures; `n_outdated` those of them from before a change of quality
    (`quality_changes`); `n_judged` those that were compared on.
    `introduced` are experts that the live router was given to explore, because nothing else can judge them; `carried`
    those that no outcome table grades, and of which the candidate knows what the live router knows; `mix_moved` is how
    far the traffic's mix of categories is from the labelled queries, where enough was asked, and `is_mix_followed` that
    the candidate's stage 1 expects it.
    """

    log: LogTable
    n_learned: int
    n_outdated: int
    n_judged: int
    n_outcomes: int
    n_outdated_grades: int
    quality_changes: tuple[ChangePoint, ...]
    live: str
    candidate: str
    changes: tuple[MapChange, ...]
    gate: GateResult
    is_promoted: bool
    introduced: tuple[str, ...]
    carried: tuple[str, ...]
    mix_moved: Metric | None
    is_mix_followed: bool
    reason: str

    @property
    def n_failures(self) -> int:
        """Requests at which the expert failed, among those learned from and held out."""
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
    live_folder = registry.folder(pointer.version)
    artifact = load_artifact(live_folder)
    live = configured_router(load_config(request.config), artifact)  # first: one that cannot be compared costs no fit
    progress("reading the log, the feedback and the outcomes")
    inputs = replace(read_inputs(request, artifact, now=now, progress=progress), serving=live.expert_of())
    evidence = inputs.evidence()
    with tempfile.TemporaryDirectory(prefix="coe-candidate-") as scratch:
        candidate, cross_fitted = fit_candidate(Path(scratch), inputs, evidence, pointer.version)
        progress("comparing the candidate with the live router")
        folder = Path(scratch) / candidate.manifest.version
        comparison = load_comparison(inputs, live, folder, cross_fitted, evidence)
        judged = decide_promotion(inputs, comparison)
        outcome = act(judged, inputs, comparison, registry, folder, guard)
    return replace(
        result_of(inputs, evidence, comparison, judged, outcome), mix_moved=candidate.manifest.metrics.get(MIX_MOVED)
    )


def act(
    judged: Judgement,
    inputs: RetrainInputs,
    comparison: RouterComparison,
    registry: Registry,
    folder: Path,
    guard: PromotionGuard,
) -> Outcome:
    """Promotes the candidate in `folder`, or renews the live router, as the gate said."""
    if inputs.request.is_dry_run:
        return Outcome(f"{judged.gate.sentence} (dry run: nothing was promoted)")
    compared_with = comparison.live.version
    if judged.gate.verdict is Verdict.PROMOTE:
        refused = promote(registry, folder, compared_with, inputs.now, guard)
        return Outcome(refused or judged.gate.sentence, is_promoted=not refused)
    pointer = registry.live()
    if pointer is None or pointer.trial is not None:  # a trial compares with what is live now
        return Outcome(judged.gate.sentence)
    made, names, words = renewed_live(
        registry.folder(compared_with), folder.parent, inputs, comparison, judged.newcomers
    )
    if made is None:
        return Outcome(judged.gate.sentence)
    if refused := promote(registry, made, compared_with, inputs.now, guard):
        return Outcome(refused)
    reason = f"{words} (version {made.name}). The candidate as a whole: {judged.gate.verdict}: {judged.gate.reason}"
    return Outcome(reason, is_renewed=True, introduced=names)


def result_of(
    inputs: RetrainInputs, evidence: Evidence, comparison: RouterComparison, judged: Judgement, outcome: Outcome
) -> RetrainResult:
    """Counts what was read, and reports what came of it."""
    log, changes, gate = inputs.log, inputs.changes, judged.gate
    if outcome.is_renewed:
        gate = replace(gate, more_decisions=None)
    return RetrainResult(
        log=log,
        n_learned=len(log),
        n_outdated=int(is_stale(log, changes).sum()),
        n_judged=judged.n_judged,
        n_outcomes=int(np.isfinite(inputs.outcomes.scores).sum()),
        n_outdated_grades=evidence.n_outdated_grades,
        quality_changes=changes,
        live=comparison.live.version,
        candidate=comparison.candidate.version,
        changes=map_changes(comparison.live, comparison.candidate),
        gate=gate,
        is_promoted=outcome.is_promoted,
        introduced=outcome.introduced,
        carried=() if inputs.carried is None else inputs.carried.experts,
        mix_moved=None,
        is_mix_followed=comparison.candidate.mix is not None,
        reason=outcome.reason,
    )


def promote(registry: Registry, folder: Path, compared_with: str, now: datetime, guard: PromotionGuard) -> str:
    """Makes a router live, unless another became live since the comparison, which says nothing of that one: the reason
    why it was not, empty where it was."""
    with guard():
        try:
            registry.promote(registry.adopt(folder), now, instead_of=compared_with)
        except LiveChangedError as error:
            return f"declined: {error} during the comparison"
    return ""


def renewed_live(
    live_folder: Path,
    scratch: Path,
    inputs: RetrainInputs,
    comparison: RouterComparison,
    newcomers: Newcomers | None,
) -> tuple[Path | None, tuple[str, ...], str]:
    """Folder of the live router with what the candidate knows, the names of the experts that are new to it, and what it
    does differently (training.failover). None where there is nothing, or its map does not take newer evidence."""
    live, evidence = load_artifact(live_folder), comparison.evidence
    if not can_renew(live, inputs.config.learned_categories):
        return None, (), ""
    carried = () if inputs.carried is None else inputs.carried.experts

    def with_rows(rows: Sequence[int], experts: Sequence[str]) -> tuple[Path, Router]:
        kept = [name for name in carried if name not in experts]
        made = scratch / renew(scratch, live, evidence, rows, kept).manifest.version
        return made, load_router(inputs.config, made, comparison.candidate.encoder)

    terms, evidence_of = inputs.request.terms, inputs.evidence
    made, words = find_renewal(comparison, newcomers, inputs.changes, terms, inputs.log, with_rows, evidence_of)
    if made is None:
        return None, (), ""
    is_exploring = any(policy.exploration > 0 for policy in inputs.config.policies.values())
    names = tuple(name for name in evidence.outcomes.experts if name not in live.manifest.experts and is_exploring)
    joining = f"{', '.join(names)} joins the live router to be explored" if names else ""
    return made, names, joined(words, joining) or "explores by newer evidence"


def load_comparison(
    inputs: RetrainInputs, live: Router, candidate: Path, cross_fitted: Sequence[FittedModel], evidence: Evidence
) -> RouterComparison:
    """Loads the candidate and its cross-fitted models. Raises ArtifactError."""
    config = inputs.config
    challenger = load_router(config, candidate)
    entries = [config.experts[name] for name in evidence.outcomes.experts]
    return RouterComparison(
        live=live,
        candidate=challenger,
        evidence=evidence,
        costs_usd=expert_costs(entries, evidence.matrix).cost_usd,
        rng=inputs.rng,
        cross_fitted=tuple(
            CrossFitted(load_router(config, fitted.folder, challenger.encoder), fitted.evidence)
            for fitted in cross_fitted
        ),
    )
