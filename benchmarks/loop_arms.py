"""`coe retrain` on simulated traffic, and nobody who learns from it.

`Retraining` calls what the command calls: the evidence, the artifact, the comparison, the gate; only SQL is left out.

Shapes: n prompts of traffic, m experts of the world, t decisions.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from base.progress import silent
from benchmarks.loop_fleet import (
    CALM,
    Float64Array,
    History,
    IntArray,
    Moment,
    Voices,
    World,
    draw_experts,
    draw_prompts,
    draw_rewards,
    without,
)
from router.build import MeasuredExperts, assemble, solved_policy
from router.capabilities import Capabilities
from router.feedback_config import FeedbackConfig
from router.map_solver import ExpertCosts
from router.pipeline import Router
from router.policy_config import ExplorationConfig, PolicyConfig
from router.quality import Measured, QualityMatrix
from router.scorers.map import MapScorer
from router.section import PluginConfig
from router.types import Interval, Metric, Verdict
from training.candidate_fit import folds_of
from training.candidate_verdict import judged_rows, without_passengers
from training.change_points import ChangePoint, find_change_points
from training.evidence import Evidence, beside_serving, gather_evidence
from training.expert_map import measure_quality
from training.feedback_bias import ReplyBin, ReplyRates
from training.fit import prepare, write_router
from training.gate import (
    DEFAULT_TERMS,
    Comparison,
    GateResult,
    Terms,
    judge,
)
from training.log_answers import AskedAnswers, LoggedChoices
from training.log_table import FOLDS, LogTable
from training.new_experts import Renewed, explored_shares, renewed
from training.router_comparison import LogComparison, Newcomers, RouterComparison, Twin
from training.scorer_fit import FittedScorer
from training.stage_one import FitRequest
from training.takeover import find_renewal
from training.types import OutcomeTable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALPHA = 0.1
EXPLORATION = ExplorationConfig(budget=0.005)
MAX_KEY_SHARE = FeedbackConfig().max_key_share
NOTHING = Metric(value=0.0, interval=Interval(low=0.0, high=0.0))
SAME_ACCURACY = Comparison("category accuracy", NOTHING, NOTHING, NOTHING, 0.0)
"""Stage 1 is the same in both routers here."""

UNDECIDED = GateResult(Verdict.NEED_MORE, "far from evidence", ())
HOPELESS = 1.0
"""log E by what the candidate learned from, which flatters it; below that its twins are not fitted: 1 / LEVEL takes 3.0
of them."""

MAP = FittedScorer(PluginConfig(kind="map"), {}, {}, {})


@dataclass(frozen=True)
class Settings:
    """`retrain_every` decisions; `terms` of the gate; who rates."""

    retrain_every: int = 500
    terms: Terms = DEFAULT_TERMS
    exploration: ExplorationConfig = EXPLORATION
    voices: Voices = CALM


@dataclass(frozen=True)
class Stage:
    """Stage 1, fitted once, as a router without evidence; `row_of` is the row that it decides for each text."""

    router: Router
    row_of: Mapping[str, int]

    def rows(self, table: OutcomeTable) -> IntArray:
        return np.array([self.row_of[text] for text in table.texts])


def fit_stage(world: World, config: PluginConfig, rng: np.random.Generator) -> Stage:
    """Args:
    config: of the encoder that made the world's vectors.
    """
    experts = world.probes.experts
    request = FitRequest(
        encoder_config=config,
        classifier=PluginConfig(kind="logistic"),
        scorer=PluginConfig(kind="map"),
        categories=world.categories,
        experts=experts,
        evidence=measure_quality(world.probes, world.categories),
        alpha=ALPHA,
        data_fingerprints={},
        is_holding_out=False,
    )
    prepared = prepare(request, world.encoder, world.queries, rng, silent)
    with tempfile.TemporaryDirectory(prefix="coe-loop-") as folder:
        artifact = write_router(Path(folder), request, world.encoder, prepared, MAP, NOW)
    router = assemble(
        artifact,
        world.encoder,
        measured_by(request.evidence, experts),
        policies={"default": PolicyConfig()},
        alpha=ALPHA,
        scorer=PluginConfig(kind="map"),
    )
    texts = (*world.probes.texts, *world.traffic.texts)
    vectors = world.encoder.encode(texts)
    rows = np.array([judged.row for judged in router.judge(vectors, router.predict_categories(vectors))])
    return Stage(router, dict(zip(texts, rows.tolist(), strict=True)))


def measured_by(
    evidence: QualityMatrix, experts: tuple[str, ...], newest: QualityMatrix | None = None
) -> MeasuredExperts:
    """Experts that cost nothing."""
    free, m = np.zeros(evidence.quality.shape, dtype=np.float32), len(experts)
    zeros = np.zeros(m, dtype=np.float32)
    costs = ExpertCosts(zeros, np.arange(m), zeros, zeros, free, free)
    newer = {} if newest is None else {name: getattr(newest, name) for name in ("quality", "stderr", "mass")}
    return MeasuredExperts(experts, evidence, costs, {name: Capabilities() for name in experts}, newer)


def router_of(
    stage: Stage,
    evidence: QualityMatrix,
    experts: tuple[str, ...],
    settings: Settings,
    newest: QualityMatrix | None = None,
) -> Router:
    """A router with this evidence, as its artifact would be loaded."""
    measured = measured_by(evidence, experts, newest)
    policy = solved_policy(
        PolicyConfig(exploration=settings.exploration), stage.router.categories, measured, None, None
    )
    return replace(
        stage.router,
        scorer=MapScorer(Measured(experts, evidence)),
        experts=experts,
        policies={"default": policy},
        capabilities=measured.capabilities,
        costs=measured.costs,
    )


def wanted_by(router: Router, world: World) -> IntArray:
    """(k+1,) number, in the world, of the expert that a router wants in each row."""
    names = world.traffic.experts
    return np.array([names.index(expert) for expert in router.expert_of().values()])


def shares_of(router: Router, world: World) -> Float64Array:
    """(k+1, m) shares of the world's experts in each row, explored ones included."""
    found = np.zeros((len(router.categories), len(world.traffic.experts)))
    for row, shares in enumerate(explored_shares(router, "default")):
        for name, share in shares.items():
            found[row, world.traffic.experts.index(name)] = share
    return found


def reply_weights(category: IntArray, expert: IntArray, rated: IntArray) -> Float64Array:
    """(len(rated),) how many of the answers (n,) each rated one represents, with mean 1."""
    cells = list(zip(category.tolist(), expert.tolist(), strict=True))
    own, rates = [cells[i] for i in rated], ReplyRates()
    answers, replies = Counter(cells), Counter(own)
    for cell, n in answers.items():
        rates.count(ReplyBin(*map(str, cell)), n, replies[cell])
    weight = {cell: rates.weight(ReplyBin(*map(str, cell))) for cell in replies}
    found = np.array([weight[cell] for cell in own])
    return found / found.mean() if len(found) else found


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
    newcomers: Newcomers | None = None

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

    def __post_init__(self) -> None:
        self.salt = int(self.rng.integers(2**40))
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
        self.history.add(prompts, chosen, rows, version, reward, key, seen)
        if self.is_learning and self.history.n % self.settings.retrain_every == 0:
            self.retrain(moment)
        return float(moment.quality[prompts, chosen].mean())

    def log(self) -> tuple[LogTable, IntArray]:
        """The answers whose ratings have come as a log, and the prompt of each."""
        columns = self.history.columns()
        version, category, expert = (columns[name].astype(np.int64) for name in ("version", "category", "expert"))
        rated = np.flatnonzero(np.isfinite(columns["reward"]) & (columns["seen"] < self.history.n))
        prompt = columns["prompt"][rated].astype(np.int64)
        rows = self.router.categories
        counts = np.bincount(category, minlength=len(rows))
        log = LogTable(
            ids=np.array([b"%d" % i for i in rated], dtype=np.bytes_),
            categories=rows,
            experts=self.world.traffic.experts,
            category=category[rated].astype(np.int32),
            expert=expert[rated].astype(np.int32),
            reward=columns["reward"][rated],
            propensity=np.stack(self.tables)[version, category, expert][rated],
            weight=reply_weights(category, expert, rated),
            at=rated.astype(np.float64),
            # A large odd multiplier and a salt spread neighbouring prompts over the parts.
            question=(prompt * 2_654_435_761 + self.salt) % 2**61 // 7,
            key=columns["key"][rated].astype(np.int64),
            is_held_out=np.zeros(len(rated), dtype=bool),
            is_failure=np.zeros(len(rated), dtype=bool),
            max_key_share=MAX_KEY_SHARE,
            traffic=dict(zip(rows, counts.tolist(), strict=True)),
            n_rows=self.history.n,
        )
        return log, prompt

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
        """Evidence of a candidate, or of a twin of it; spoiled where that is asked for."""
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
        self, comparison: RouterComparison, log: LogTable, changes: tuple[ChangePoint, ...], newcomers: Newcomers | None
    ) -> bool:
        """Lets the live router learn what it may without the gate. Returns whether an expert took over."""

        def with_rows(rows: Sequence[int], _: Sequence[str]) -> tuple[Renewed, Router]:
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

    def twins(self, log: LogTable, changes: tuple[ChangePoint, ...]) -> list[Twin]:
        """The candidate without each part of what it learned from."""
        folds, found, still = folds_of(self.probes), [], replace(self.settings, exploration=ExplorationConfig())
        for fold in range(FOLDS):
            evidence = self.learned(self.probes.rows(folds != fold), log.without(fold), changes)
            found.append(Twin(router_of(self.stage, evidence.matrix, self.experts, still), evidence))
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
            is_named_before: the candidate follows from nothing in the log, so it judges without twins.
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
            in_sample = comparison.on_log(asked, share[rows], choices).doubly_robust
            of_new = comparison.on_newcomers(asked, share[rows], choices)
            is_hopeful = of_new is not None and of_new.gain.log_e >= HOPELESS
            if in_sample.can_decide and in_sample.log_e < HOPELESS and not is_hopeful:
                return Round(self.history.n, UNDECIDED, None, *values)  # without ten twins
        twins = [] if is_named_before else self.twins(log, changes)
        comparison = replace(comparison, twins=tuple(twins))
        on_log, newcomers = None, None
        if len(rows):
            theirs = wanted[decided]
            for number, twin in enumerate(twins):
                own = asked.log.fold == number
                theirs[own] = wanted_by(twin.router, self.world)[decided[own]]
            choices = self.choices(comparison, decided, theirs)
            on_log = comparison.on_log(asked, share[rows], choices)
            newcomers = comparison.on_newcomers(asked, share[rows], choices)
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
            crossed=comparison.crossed(probes, vectors) if twins else None,
        )
        return Round(self.history.n, without_passengers(gate, newcomers), on_log, *values, newcomers=newcomers)

    def choices(self, comparison: RouterComparison, decided: IntArray, theirs: IntArray) -> list[LoggedChoices]:
        """Choices of the live router, and those that are `theirs` (n,), on answers of these rows (n,)."""
        names = comparison.experts
        number = np.array([names.index(name) if name in names else -1 for name in self.world.traffic.experts])
        every = np.ones(len(decided), dtype=bool)
        return [LoggedChoices(number[own], every) for own in (self.wanted[decided], theirs)]

    def value(self, moment: Moment) -> float:
        """Mean true score of what the router in force wants."""
        return float(moment.mix @ moment.quality[np.arange(len(self.rows)), self.wanted[self.rows]])


def spoiled(matrix: QualityMatrix, noise: Float64Array) -> QualityMatrix:
    """Evidence that is wrong by this noise (k+1, m): that of a fit that went astray."""
    quality = np.clip(matrix.quality + noise, 0.0, 1.0).astype(np.float32)
    return replace(matrix, quality=quality, stderr=np.full_like(matrix.stderr, 1e-3))
