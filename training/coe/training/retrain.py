"""The round of `coe retrain`: read, name challengers, count the bets on them, move categories, fit stage 1 anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from coe.base.errors import ArtifactError
from coe.cli.progress import Progress, silent
from coe.fleet.router_registry import LiveChangedError, PromotionGuard, Registry
from coe.router.build import configured_router
from coe.router.config.composition import load_config
from coe.router.model_files.artifact import RouterArtifact, load_artifact, written
from coe.router.pipeline import Router
from coe.router.policy.exploration import dearness, price
from coe.router.types import GENERAL, Float64Array, IntArray, Verdict
from coe.training.bets import PROMOTION_EVIDENCE, Bets, bets_on
from coe.training.change_points import ChangePoint, is_stale
from coe.training.evidence import Evidence
from coe.training.feedback_bias import min_keys
from coe.training.fit_inputs import RetrainInputs, RetrainRequest, read_inputs
from coe.training.learned_map import Learned, LearningGain, learned_of, measure_learning, renew_router, traffic_shift
from coe.training.log_table import LogTable
from coe.training.stage_check import StageCheck, new_stage, with_stage

MIN_TRAFFIC_SHIFT = 0.03
"""Share of the queries that a new version must send elsewhere to be created (ours): every rating moves some."""


@dataclass(frozen=True)
class MapChange:
    """A category whose expert differs between two routers."""

    category: str
    live: str
    candidate: str


def map_changes(live: Router, candidate: Router) -> tuple[MapChange, ...]:
    """Return the categories that the second router sends elsewhere."""
    before, after = live.expert_of(), candidate.expert_of()
    return tuple(
        MapChange(category, before[category], after[category])
        for category in after
        if category in before and before[category] != after[category]
    )


@dataclass(frozen=True)
class Challenger:
    """An expert that answers much of a category's queries: its estimated gain (`lead`), and the capital of the bets
    on it alone."""

    category: str
    expert: str
    serves: str
    lead: float
    capital: float


@dataclass(frozen=True)
class RetrainResult:
    """The report of a round: inputs, `capital` of the bets on `n_bets` answers, moves, present challengers, gain of
    learning. `stage` is None if stage 1 was not fitted anew; `candidate` is the router that is live now, or would
    be."""

    log: LogTable
    quality_changes: tuple[ChangePoint, ...]
    n_outcomes: int
    n_outdated_grades: int
    live: str
    candidate: str
    stage: StageCheck | None
    moves: tuple[MapChange, ...]
    challengers: tuple[Challenger, ...]
    capital: float
    n_bets: int
    since: float
    progress: LearningGain
    verdict: Verdict
    reason: str
    is_promoted: bool

    @property
    def n_learned(self) -> int:
        """The number of answers with feedback, and of failures."""
        return len(self.log)

    @property
    def n_outdated(self) -> int:
        """The number of those answers from before a change of quality."""
        return int(is_stale(self.log, self.quality_changes).sum())

    @property
    def n_failures(self) -> int:
        """The number of those answers at which the expert failed."""
        return int(self.log.is_failure.sum())


@dataclass(frozen=True)
class Succession:
    """The position of the live router, which only its successor may take."""

    registry: Registry
    live: RouterArtifact
    now: datetime
    guard: PromotionGuard

    @property
    def is_on_trial(self) -> bool:
        """True if a router is on trial, and compared with the live one, or if none is live any more."""
        pointer = self.registry.live()
        return pointer is None or pointer.trial is not None

    def promote(self, artifact: RouterArtifact) -> str:
        """Make a router live, unless another became live since. Return the reason why it was not, or an empty text."""
        with self.guard():
            version = written(self.registry.root, artifact).manifest.version
            try:
                self.registry.promote(version, self.now, instead_of=self.live.manifest.version)
            except LiveChangedError as error:
                return f"declined: {error} during the round"
        return ""


def run_retrain(
    request: RetrainRequest, *, now: datetime, progress: Progress = silent, guard: PromotionGuard = nullcontext
) -> RetrainResult:
    """Run a round: move categories that the bets on the live router's challengers won, and name new challengers.

    Raises:
        ArtifactError: there is no live router to learn, or it is damaged.
        DataError, StoreError: the log, the outcomes or the seed set cannot be used.
        LockLostError: `guard` found that another process may promote now.
    """
    registry = Registry(request.routers)
    pointer = registry.live()
    if pointer is None:
        raise ArtifactError(f"{request.routers}: there is no live router to improve on; run `coe train` first")
    place = Succession(registry, load_artifact(registry.folder(pointer.version)), now, guard)
    config = load_config(request.config)
    live = configured_router(config, place.live)
    progress("reading the log, the feedback and the outcomes")
    inputs = read_inputs(request, config, place.live, live, now=now, progress=progress)
    evidence = inputs.evidence(place.live.manifest.categories)
    return Round(inputs, place, live, evidence, learned_of(place.live, live)).run()


@dataclass(frozen=True)
class Round:
    """A round over its inputs. `learned` numbers experts as the live artifact does."""

    inputs: RetrainInputs
    place: Succession
    live: Router
    evidence: Evidence
    learned: Learned

    def run(self) -> RetrainResult:
        """Decide the round, and make its result live."""
        inputs, artifact = self.inputs, self.place.live
        bets = self.bets()
        moves = bets.moves() if self.is_map else {}
        learned = self.learned.after_moves(moves, inputs.now)
        made = renew_router(artifact, self.evidence, learned, inputs.now) if self.is_map else artifact
        stage, fitted = new_stage(inputs, self.live, made, self.evidence) if self.is_map else (None, None)
        if fitted is not None:
            made = with_stage(made, fitted)
        after = configured_router(inputs.config, made, self.live.encoder)
        found = RetrainResult(
            log=inputs.log,
            quality_changes=inputs.changes,
            n_outcomes=int(np.isfinite(inputs.outcomes.scores).sum()),
            n_outdated_grades=self.evidence.n_outdated_grades,
            live=artifact.manifest.version,
            candidate=made.manifest.version,
            stage=stage,
            moves=map_changes(self.live, after),
            challengers=challengers_of(after, {} if moves else bets.capital_by_challenger, made.manifest.experts),
            capital=bets.capital,
            n_bets=len(bets),
            since=self.learned.since,
            progress=measure_learning(made, after),
            verdict=Verdict.NEED_MORE,
            reason="",
            is_promoted=False,
        )
        return self.make_live(found, made, after, is_other=bool(moves) or fitted is not None)

    @property
    def is_map(self) -> bool:
        """True if the live router decides by a map; a learned scorer judges each query, and only `coe train` fits
        it."""
        return self.place.live.manifest.scorer.kind == "map"

    def bets(self) -> Bets:
        """Place the bets on the challengers of the live router, and of those before it, by the live map."""
        experts, rows = self.place.live.manifest.experts, (*self.place.live.manifest.categories, GENERAL)
        prices = prices_of(self.live, self.learned.serving, experts)
        log, changes = self.inputs.log, self.inputs.changes
        return bets_on(log, rows, experts, self.learned.serving, prices, self.learned.since, changes)

    def make_live(self, found: RetrainResult, made: RouterArtifact, after: Router, *, is_other: bool) -> RetrainResult:
        """Make the decision live, and return the result."""
        is_wanted = is_other or (self.is_map and moves_traffic(self.live, after))
        verdict = Verdict.PROMOTE if is_other else Verdict.NEED_MORE if found.challengers else Verdict.DECLINE
        found = replace(found, verdict=verdict, reason=f"{verdict}: {self.describe(found)}")
        if self.inputs.request.is_dry_run:
            return replace(found, reason=f"{found.reason} (dry run: nothing was changed)")
        if not is_wanted or (self.place.is_on_trial and not is_other):
            return replace(found, candidate=found.live)
        if refused := self.place.promote(made):
            return replace(found, candidate=found.live, verdict=Verdict.DECLINE, reason=refused)
        return replace(found, is_promoted=is_other)

    def describe(self, found: RetrainResult) -> str:
        """Describe the outcome of the round, and what would speed learning up."""
        if not self.is_map:
            kind = self.place.live.manifest.scorer.kind
            return f"scorer '{kind}' decides by each query, so no category can be moved; `coe train` fits it anew"
        odds = (
            f"the evidence of {found.n_bets:,} bets is {found.capital:.3g}; a category moves at {PROMOTION_EVIDENCE:g}"
        )
        if found.moves:
            return f"{describe_moves(found.moves)}: {odds}"
        if found.verdict is Verdict.PROMOTE:
            return "stage 1 is fitted anew"
        if found.challengers:
            return f"{odds}; {self.describe_need(found)}"
        return f"changes nothing: no expert looks better than the serving one; {self.describe_need(found)}"

    def describe_need(self, found: RetrainResult) -> str:
        """Describe what learning waits for."""
        policies = self.live.policies.values()
        if not any(policy.exploration for policy in policies):
            return "exploration is off, so only serving experts answer (policies: exploration)"
        log, needed = self.inputs.log, min_keys(self.inputs.log.max_key_share)
        if not len(log):
            return "no answer has feedback yet (docs/feedback.md)"
        if (log.key >= 0).any() and (n := len(np.unique(log.key))) < needed:
            return f"{n} keys give feedback, and {needed} are needed (experts.yaml: feedback.trusted_keys)"
        if (more := answers_needed(found)) is None:
            return "more answers with feedback may name other challengers, or decide"
        return f"about {more:,} more answers with feedback decide, if the challengers are as good as they look"


def moves_traffic(live: Router, after: Router) -> bool:
    """Return whether a router sends enough queries elsewhere to become a version of its own."""
    return live.experts != after.experts or traffic_shift(live, after) > MIN_TRAFFIC_SHIFT


def describe_moves(moves: Sequence[MapChange]) -> str:
    """Describe which expert takes over which category."""
    return ", ".join(f"{move.candidate} takes over {move.category} from {move.live}" for move in moves)


def prices_of(router: Router, serving: IntArray, experts: Sequence[str]) -> Float64Array:
    """Return the gain (k+1, m) that pays for each expert in place of the serving one; 0 if the router lacks it."""
    found = np.zeros((len(serving), len(experts)))
    if router.costs is None:
        return found
    dear = dearness(router.costs.cost_usd, router.policy("default").solution.used["cost_usd"])
    own = [router.experts.index(name) if name in router.experts else -1 for name in experts]
    for row, serves in enumerate(serving.tolist()):
        for number, column in enumerate(own):
            if column >= 0 and own[serves] >= 0:
                found[row, number] = price(dear[row], own[serves], column)
    return found


def challengers_of(
    router: Router, own: Mapping[tuple[int, int], float], experts: Sequence[str]
) -> tuple[Challenger, ...]:
    """Return the challengers of the policy `default`; `own` is the capital by (row, number in `experts`)."""
    policy, evidence = router.policy("default"), router.scorer.measured.evidence
    named = {} if policy.exploration is None else policy.exploration.challengers
    found = []
    for row, (expert, _) in sorted(named.items()):
        serves = int(policy.solution.expert_of[row])
        capital = own.get((row, experts.index(router.experts[expert])), 1.0)
        lead = float(evidence.quality[row, expert] - evidence.quality[row, serves])
        found.append(Challenger(router.categories[row], router.experts[expert], router.experts[serves], lead, capital))
    return tuple(found)


def answers_needed(found: RetrainResult) -> int | None:
    """Return the answers with feedback until the capital is enough at its present rate; None while it does not grow."""
    if found.n_bets < 1 or found.capital <= 1.0 or found.capital >= PROMOTION_EVIDENCE:
        return None
    return math.ceil(found.n_bets * math.log(PROMOTION_EVIDENCE / found.capital) / math.log(found.capital))
