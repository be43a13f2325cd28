"""`coe retrain` on simulated traffic, and nobody who learns from it.

`Retraining` calls what the command calls: the evidence, the artifact, the comparison, the gate; only SQL is left out.

Shapes: n prompts of traffic, m experts of the world, t decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.loop_fleet import (
    Float64Array,
    History,
    IntArray,
    Moment,
    World,
    draw_experts,
    draw_prompts,
    draw_rewards,
    without,
)
from benchmarks.loop_log import judged_log, logged, reply_weights
from benchmarks.loop_stage import Settings, Stage, router_of, shares_of, wanted_by
from coe.router.pipeline import Router
from coe.router.quality import QualityMatrix
from coe.router.types import Interval, Metric, Verdict
from coe.training.candidate import without_passengers
from coe.training.change_points import ChangePoint, find_change_points
from coe.training.evidence import Evidence, beside_serving, gather_evidence
from coe.training.expert_map import measure_quality
from coe.training.failover import Renewed, find_renewal, renewed
from coe.training.gate import (
    Comparison,
    GateResult,
    judge,
)
from coe.training.judged_pairs import JudgedPairs
from coe.training.log_answers import AskedAnswers, LoggedChoices
from coe.training.log_comparison import (
    LogComparison,
    NewExperts,
    compare_new_experts,
    compare_on_log,
    judged_rows,
    judging_pairs,
)
from coe.training.log_table import FOLDS, LogTable
from coe.training.router_comparison import CrossFitted, RouterComparison, folds_of
from coe.training.types import OutcomeTable

NOTHING = Metric(value=0.0, interval=Interval(low=0.0, high=0.0))
SAME_ACCURACY = Comparison("category accuracy", NOTHING, NOTHING, NOTHING, 0.0)
"""Stage 1 is the same in both routers here."""

UNDECIDED = GateResult(Verdict.NEED_MORE, "far from evidence", ())
HOPELESS = 1.0
"""log E by what the candidate learned from, which flatters it; below that no model is cross-fitted: 1 / LEVEL takes 3.0
of them."""


@dataclass(frozen=True)
class Round:
    """One retraining: the truth about the live router before, and about the candidate, each as it decides. `gate` is
    None where both decide alike; `gain_of_takeover` the true gain where an expert takes over without the gate."""

    decisions: int
    gate: GateResult | None
    on_log: LogComparison | None
    live_value: float
    candidate_value: float
    gain_of_takeover: float | None = None
    newcomers: NewExperts | None = None

    @property
    def is_promoted(self) -> bool:
        return self.gate is not None and self.gate.verdict is Verdict.PROMOTE

    @property
    def gain(self) -> float:
        return self.candidate_value - self.live_value


@dataclass
class Retraining:
    """The production loop over a world. `salt` deals the questions out to the parts anew in every run; `noise` (k+1, m)
    spoils the evidence of every candidate."""

    world: World
    stage: Stage
    settings: Settings
    rng: np.random.Generator
    experts: tuple[str, ...]
    is_learning: bool = True
    noise: Float64Array | None = None
    history: History = field(default_factory=History)
    tables: list[Float64Array] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    judged: list[Float64Array] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.salt = int(self.rng.integers(2**40))
        self.judges = np.random.default_rng(self.salt)
        self.compared = np.zeros(len(self.world.traffic.experts), dtype=np.int64)
        self.rows = self.stage.rows(self.world.traffic)
        self.take_over(measure_quality(self.probes, self.world.categories), self.experts)

    @property
    def probes(self) -> OutcomeTable:
        return without(self.world.probes, [e for e in self.world.probes.experts if e not in self.experts])

    def take_over(self, evidence: QualityMatrix, experts: tuple[str, ...], newest: QualityMatrix | None = None) -> None:
        self.evidence = evidence
        self.router = router_of(self.stage, evidence, experts, self.settings, newest)
        self.wanted = wanted_by(self.router, self.world)
        self.tables.append(shares_of(self.router, self.world))

    def serve(self, moment: Moment, t: int) -> float:
        """Answers t queries, retrains when it is time to; mean true score of the answers."""
        self.experts = moment.experts
        prompts = draw_prompts(moment, t, self.rng)
        rows = self.rows[prompts]
        chosen, version = draw_experts(self.tables[-1], rows, self.rng), np.full(t, len(self.tables) - 1)
        reward, key, late = draw_rewards(moment, prompts, chosen, self.settings.voices, self.rng)
        seen = self.history.n + np.arange(t) + late
        if self.settings.judge is not None:
            asked = prompts, chosen, self.tables[-1][rows], self.compared
            found, *said = self.settings.judge.judged(moment, *asked, self.judges)
            self.judged.append(np.stack([self.history.n + found, *said]))
        self.history.add(prompts, chosen, rows, version, reward, key, seen)
        if self.is_learning and self.history.n % self.settings.retrain_every == 0:
            self.retrain(moment)
        return float(moment.quality[prompts, chosen].mean())

    def log(self) -> tuple[LogTable, IntArray]:
        """The answers whose ratings have come as a log, and the prompt of each."""
        columns = self.history.columns()
        version, category, expert = (columns[name].astype(np.int64) for name in ("version", "category", "expert"))
        rated = np.flatnonzero(np.isfinite(columns["reward"]) & (columns["seen"] < self.history.n))
        rows, experts = self.router.categories, self.world.traffic.experts
        counts = np.bincount(category, minlength=len(rows))
        log = logged(
            columns,
            rated,
            rows,
            experts,
            self.salt,
            reward=columns["reward"][rated],
            propensity=np.stack(self.tables)[version, category, expert][rated],
            weight=reply_weights(category, expert, rated),
            traffic=dict(zip(rows, counts.tolist(), strict=True)),
            n_rows=self.history.n,
            judged=judged_log(columns, self.judged, rows, experts, self.salt) if self.judged else None,
        )
        return log, columns["prompt"][rated].astype(np.int64)

    def asked(self, log: LogTable, prompts: IntArray) -> AskedAnswers:
        """Answers of a log with their prompts (n,), as the second pass over SQL gives them; nobody reads their vectors
        here."""
        n, names = len(log), self.world.traffic.experts
        version = self.history.columns()["version"][log.ids.astype(np.int64)].astype(np.int64)
        chances = [
            [{name: chance for name, chance in zip(names, row, strict=True) if chance > 0} for row in table.tolist()]
            for table in self.tables
        ]
        return AskedAnswers(
            log=log,
            texts=tuple(self.world.traffic.texts[i] for i in prompts),
            embeddings=np.zeros((n, 1), dtype=np.float16),
            policies=("default",) * n,
            excluded=((),) * n,
            chances=tuple(chances[own][row] for own, row in zip(version, log.category, strict=True)),
        )

    def learned(self, probes: OutcomeTable, log: LogTable, changes: tuple[ChangePoint, ...]) -> Evidence:
        """Evidence of a candidate, or of a cross-fitted one; spoiled where that is asked for."""
        evidence = gather_evidence(probes, log, self.world.categories, changes)
        matrix = beside_serving(evidence.matrix, self.router.categories, probes.experts, self.router.expert_of())
        evidence = replace(evidence, matrix=matrix)
        return evidence if self.noise is None else replace(evidence, matrix=spoiled(evidence.matrix, self.noise))

    def retrain(self, moment: Moment) -> None:
        """One `coe retrain`."""
        log, prompt = self.log()
        changes = find_change_points(log)
        evidence = self.learned(self.probes, log, changes)
        candidate = router_of(self.stage, evidence.matrix, self.experts, self.settings)
        comparison = self.with_live(candidate, evidence)
        done = self.compare(moment, log, prompt, changes, comparison)
        if done.is_promoted:
            self.take_over(evidence.matrix, self.experts)
        elif self.renew(comparison, log, changes, done.newcomers):
            done = replace(done, gain_of_takeover=self.value(moment) - done.live_value)
        self.rounds.append(done)

    def renew(
        self,
        comparison: RouterComparison,
        log: LogTable,
        changes: tuple[ChangePoint, ...],
        newcomers: NewExperts | None,
    ) -> bool:
        """Lets the live router learn what it may without the gate. Returns whether an expert took over."""

        def with_rows(rows: Sequence[int]) -> tuple[Renewed, Router]:
            made = renewed(self.evidence, self.router.experts, comparison.evidence, rows)
            return made, router_of(self.stage, made.matrix, made.experts, self.settings, made.newest)

        made, words = find_renewal(
            comparison,
            newcomers,
            changes,
            self.settings.terms,
            log,
            with_rows,
            lambda other: self.learned(self.probes, other, changes),
        )
        if made is not None:
            self.take_over(made.matrix, made.experts, made.newest)
        return bool(words)

    def cross_fitted(self, log: LogTable, changes: tuple[ChangePoint, ...]) -> list[CrossFitted]:
        """The candidate without each part of what it learned from."""
        folds, found, still = folds_of(self.probes), [], replace(self.settings, exploration=0.0)
        for fold in range(FOLDS):
            evidence = self.learned(self.probes.rows(folds != fold), log.without(fold), changes)
            found.append(CrossFitted(router_of(self.stage, evidence.matrix, self.experts, still), evidence))
        return found

    def with_live(self, candidate: Router, evidence: Evidence) -> RouterComparison:
        return RouterComparison(
            live=self.router,
            candidate=candidate,
            evidence=evidence,
            costs_usd=np.zeros(evidence.matrix.quality.shape, dtype=np.float32),
            rng=self.rng,
        )

    def compare(
        self,
        moment: Moment,
        log: LogTable,
        prompt: IntArray,
        changes: tuple[ChangePoint, ...],
        comparison: RouterComparison,
        *,
        is_named_before: bool = False,
    ) -> Round:
        """The candidate against the live router, by what production would see and by the truth.

        Args:
            is_named_before: the candidate follows from nothing in the log, so it judges without cross-fitted models.
        """
        wanted, at = wanted_by(comparison.candidate, self.world), np.arange(len(self.rows))
        values = [float(moment.mix @ moment.quality[at, own[self.rows]]) for own in (self.wanted, wanted)]
        used = np.unique(self.rows)
        if (wanted[used] == self.wanted[used]).all():
            return Round(self.history.n, None, None, *values)
        rows, share = judged_rows(log, changes, comparison)
        asked, decided = self.asked(log.rows(rows), prompt[rows]), self.rows[prompt[rows]]
        if not is_named_before and len(rows):
            choices = self.choices(comparison, decided, wanted[decided])
            in_sample = compare_on_log(comparison, asked, share[rows], choices).doubly_robust
            pairs = self.pairs(comparison, log, changes, [wanted] * FOLDS)
            of_new = compare_new_experts(comparison, asked, share[rows], choices, pairs=pairs)
            is_hopeful = of_new is not None and of_new.gain.log_e >= HOPELESS
            if in_sample.can_decide and in_sample.log_e < HOPELESS and not is_hopeful:
                return Round(self.history.n, UNDECIDED, None, *values)  # without ten cross-fitted models
        cross_fitted = [] if is_named_before else self.cross_fitted(log, changes)
        comparison = replace(comparison, cross_fitted=tuple(cross_fitted))
        on_log, newcomers = None, None
        if len(rows):
            theirs = wanted[decided]
            by_fold = [wanted_by(fitted.router, self.world) for fitted in cross_fitted] or [wanted] * FOLDS
            for number, own_wanted in enumerate(by_fold):
                own = asked.log.fold == number
                theirs[own] = own_wanted[decided[own]]
            choices = self.choices(comparison, decided, theirs)
            on_log = compare_on_log(comparison, asked, share[rows], choices)
            pairs = self.pairs(comparison, log, changes, by_fold)
            newcomers = compare_new_experts(comparison, asked, share[rows], choices, pairs=pairs)
        log_decides = on_log is not None and on_log.doubly_robust.can_decide
        if on_log is not None and log_decides and not on_log.doubly_robust.is_evident:
            return Round(self.history.n, UNDECIDED, on_log, *values, newcomers=newcomers)  # whatever the grades say
        probes = comparison.evidence.outcomes
        vectors = self.world.encoder.encode(probes.texts)
        gate = judge(
            SAME_ACCURACY,
            comparison.on_outcomes(probes, vectors, is_held_out=False),
            None if on_log is None else on_log.doubly_robust,
            terms=self.settings.terms.model_copy(update={"decisions_per_row": log.n_rows / max(len(rows), 1)}),
            cost_live_usd=0.0,
            cost_candidate_usd=0.0,
            crossed=comparison.crossed(probes, vectors) if cross_fitted else None,
        )
        return Round(self.history.n, without_passengers(gate, newcomers), on_log, *values, newcomers=newcomers)

    def choices(self, comparison: RouterComparison, decided: IntArray, theirs: IntArray) -> list[LoggedChoices]:
        """Choices of the live router, and those that are `theirs` (n,), on answers of these rows (n,)."""
        names = comparison.experts
        number = np.array([names.index(name) if name in names else -1 for name in self.world.traffic.experts])
        every = np.ones(len(decided), dtype=bool)
        return [LoggedChoices(number[own], every) for own in (self.wanted[decided], theirs)]

    def pairs(
        self,
        comparison: RouterComparison,
        log: LogTable,
        changes: tuple[ChangePoint, ...],
        wanted: Sequence[IntArray],
    ) -> JudgedPairs | None:
        """What a judge said, with the choices of the live router and of each pair's cross-fitted one, whose maps are
        `wanted`."""
        judged = judging_pairs(log, changes, comparison)
        if judged is None:
            return None
        decided = self.rows[self.history.columns()["prompt"][judged.at.astype(np.int64)].astype(np.int64)]
        theirs = np.stack(wanted)[judged.fold, decided]
        return JudgedPairs(judged, self.choices(comparison, decided, theirs))

    def n_judged(self, blocks: int) -> int:
        """Pairs that a judge compared in the last blocks of decisions."""
        return sum(block.shape[1] for block in self.judged[-blocks:])

    def value(self, moment: Moment) -> float:
        """Mean true score of what the router in force wants."""
        return float(moment.mix @ moment.quality[np.arange(len(self.rows)), self.wanted[self.rows]])


def spoiled(matrix: QualityMatrix, noise: Float64Array) -> QualityMatrix:
    """Evidence that is wrong by this noise (k+1, m): that of a fit that went astray."""
    quality = np.clip(matrix.quality + noise, 0.0, 1.0).astype(np.float32)
    return replace(matrix, quality=quality, stderr=np.full_like(matrix.stderr, 1e-3))
