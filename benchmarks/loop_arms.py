"""Who learns from the same simulated traffic: `coe retrain`, nobody, an average of the log, a Beta bandit.

`Retraining` calls what the command calls: the evidence, the artifact, the comparison, the gate; only SQL is left out.

Shapes: n prompts of traffic, m experts of the world, t decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from base.progress import silent
from benchmarks.loop_fleet import (
    THUMB_FLOOR,
    THUMB_SLOPE,
    History,
    IntArray,
    Moment,
    World,
    draw_experts,
    draw_prompts,
    draw_rewards,
    without,
)
from router.artifact import load_artifact
from router.build import MeasuredExperts, assemble, evidence_of
from router.config import ExplorationConfig, PolicyConfig
from router.pipeline import Capabilities, Router
from router.policy import ExpertCosts
from router.quality import QualityMatrix
from router.section import PluginConfig
from router.types import GENERAL, Verdict
from training.candidate_verdict import MAX_JUDGED, judged_rows
from training.change_points import ChangePoint, find_change_points
from training.evidence import Evidence, gather_evidence
from training.expert_map import measure_quality
from training.fit import FitRequest, Prepared, prepare, write_router
from training.gate import DEFAULT_TERMS, GateResult, Terms, judge
from training.key_influence import UNLIMITED
from training.log_answers import AskedAnswers, sample_rows
from training.log_table import LogTable, is_judge
from training.new_experts import introduce, newcomers
from training.router_comparison import LogComparison, LoggedChoices, RouterComparison, choices_on
from training.scorer_fit import FittedScorer
from training.types import OutcomeTable

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALPHA = 0.1
EXPLORATION = ExplorationConfig(budget=0.005)
EVENLY_EXPLORED = 0.1
"""Share of the traffic that `Averaging` spreads evenly."""

RESPONSE_RATE = 0.3
LABELS_SHOWN = 60
"""Labelled queries on which stage 1 is compared: it is the same in both routers here."""

PRIOR_THUMBS = 16.0
MAP = FittedScorer(PluginConfig(kind="map"), {}, {}, {})


@dataclass(frozen=True)
class Settings:
    """`retrain_every` decisions; `terms` of the gate; `root` a folder for artifacts."""

    root: Path
    retrain_every: int = 500
    terms: Terms = DEFAULT_TERMS
    exploration: ExplorationConfig = EXPLORATION


@dataclass(frozen=True)
class Stage:
    """Stage 1, fitted once: its labelled queries never change here."""

    request: FitRequest
    prepared: Prepared


def fit_stage(world: World, rng: np.random.Generator) -> Stage:
    request = FitRequest(
        encoder_config=PluginConfig(kind="hashing"),
        classifier=PluginConfig(kind="logistic"),
        scorer=PluginConfig(kind="map"),
        categories=world.categories,
        experts=world.probes.experts,
        evidence=measure_quality(world.probes, world.categories),
        alpha=ALPHA,
        data_fingerprints={},
        is_holding_out=False,
    )
    return Stage(request, prepare(request, world.encoder, world.queries, rng, silent))


def router_of(
    world: World, stage: Stage, evidence: QualityMatrix, experts: tuple[str, ...], settings: Settings
) -> Router:
    """A router with this evidence, by way of its artifact on disk."""
    request = replace(stage.request, evidence=evidence, experts=experts)
    artifact = write_router(settings.root, request, world.encoder, stage.prepared, MAP, NOW)
    return loaded(world, artifact.manifest.version, experts, settings)


def loaded(world: World, version: str, experts: tuple[str, ...], settings: Settings) -> Router:
    """The router of an artifact."""
    artifact = load_artifact(settings.root / version)
    evidence = evidence_of(artifact)
    free, m = np.zeros(evidence.quality.shape, dtype=np.float32), len(experts)
    zeros = np.zeros(m, dtype=np.float32)
    costs = ExpertCosts(zeros, np.arange(m), zeros, zeros, free, free)
    return assemble(
        artifact,
        world.encoder,
        MeasuredExperts(experts, evidence, costs, {name: Capabilities() for name in experts}),
        policies={"default": PolicyConfig(exploration=settings.exploration)},
        alpha=ALPHA,
        scorer=PluginConfig(kind="map"),
    )


def asked_of(world: World, log: LogTable, prompts: IntArray, possible: tuple[str, ...]) -> AskedAnswers:
    """Answers of a log with their prompts, as the second pass over SQL gives them."""
    n = len(prompts)
    return AskedAnswers(
        log=log,
        texts=tuple(world.traffic.texts[i] for i in prompts),
        embeddings=world.embeddings[prompts].astype(np.float16),
        policies=("default",) * n,
        excluded=((),) * n,
        possible=(possible,) * n,
    )


def empty_log(n: int, world: World) -> LogTable:
    """A log whose row i is prompt i, to ask what a router does with each."""
    zeros, ones = np.zeros(n), np.ones(n)
    whole = np.zeros(n, dtype=np.int32)
    return LogTable(
        np.array([b"%d" % i for i in range(n)]),
        (GENERAL,),
        world.traffic.experts,
        whole,
        whole,
        zeros,
        ones,
        ones,
        zeros,
        np.arange(n),
        np.full(n, UNLIMITED),
        np.zeros(n, dtype=bool),
        np.zeros(n, dtype=bool),
    )


def choices_of(router: Router, world: World) -> LoggedChoices:
    """What a router does with every prompt of the traffic."""
    n = len(world.traffic.texts)
    asked = asked_of(world, empty_log(n, world), np.arange(n), router.experts)
    return choices_on(router, asked, world.traffic.experts)


def rows_of(router: Router, world: World) -> IntArray:
    """(n,) the row that stage 1 decides for every prompt."""
    vectors = world.embeddings
    return router.judge(vectors, router.predict_categories(vectors)).rows


@dataclass(frozen=True)
class Round:
    """What one retraining came to: true mean scores of the live router before, and of the candidate."""

    decisions: int
    gate: GateResult
    on_log: LogComparison | None
    live_value: float
    candidate_value: float
    changes: tuple[ChangePoint, ...]

    @property
    def is_promoted(self) -> bool:
        return self.gate.verdict is Verdict.PROMOTE


@dataclass
class Retraining:
    """The production loop over a world. `salt` deals the questions out to learning and judging anew in every run;
    `value` is the true mean score of the live router now."""

    world: World
    stage: Stage
    settings: Settings
    rng: np.random.Generator
    experts: tuple[str, ...]
    is_learning: bool = True
    history: History = field(default_factory=History)
    rounds: list[Round] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.salt = int(self.rng.integers(2**40))
        evidence = measure_quality(self.probes, self.world.categories)
        self.take_over(router_of(self.world, self.stage, evidence, self.experts, self.settings))

    @property
    def probes(self) -> OutcomeTable:
        return without(self.world.probes, [e for e in self.world.probes.experts if e not in self.experts])

    def take_over(self, router: Router) -> None:
        self.router, self.choices = router, choices_of(router, self.world)
        self.rows = rows_of(router, self.world)

    def serve(self, moment: Moment, t: int) -> float:
        """Answers t queries, retrains when it is time to; mean true score of the answers."""
        self.experts = moment.experts
        prompts = draw_prompts(moment, t, self.rng)
        chosen = draw_experts(self.choices.probs, prompts, self.rng)
        reward = draw_rewards(moment, prompts, chosen, RESPONSE_RATE, self.rng)
        self.history.add(prompts, chosen, self.rows[prompts], self.choices.probs[prompts, chosen], reward)
        if self.is_learning and self.history.n % self.settings.retrain_every == 0:
            self.retrain(moment)
        return float(moment.quality[prompts, chosen].mean())

    def log(self) -> tuple[LogTable, IntArray]:
        """The rated answers as a log, and the prompt of each."""
        columns = self.history.columns()
        rated = np.flatnonzero(np.isfinite(columns["reward"]))
        prompt = columns["prompt"][rated].astype(np.int64)
        # A large odd multiplier and a salt spread neighbouring prompts over the buckets that judge and that learn.
        question = (prompt * 2_654_435_761 + self.salt) % 2**61 // 7
        rows = self.router.categories
        counts = np.bincount(columns["category"].astype(np.int64), minlength=len(rows))
        log = LogTable(
            ids=np.array([b"%d" % i for i in rated], dtype=np.bytes_),
            categories=rows,
            experts=self.world.traffic.experts,
            category=columns["category"][rated].astype(np.int32),
            expert=columns["expert"][rated].astype(np.int32),
            reward=columns["reward"][rated],
            propensity=columns["propensity"][rated],
            weight=np.ones(len(rated)),
            at=rated.astype(np.float64),
            question=question,
            key=np.full(len(rated), UNLIMITED),
            is_held_out=is_judge(question),
            is_failure=np.zeros(len(rated), dtype=bool),
            traffic=dict(zip(rows, counts.tolist(), strict=True)),
            n_rows=self.history.n,
        )
        return log, prompt

    def candidate(self, log: LogTable, changes: tuple[ChangePoint, ...]) -> tuple[Router, Evidence]:
        evidence = gather_evidence(self.probes, log, self.world.categories, changes)
        return router_of(self.world, self.stage, evidence.matrix, self.experts, self.settings), evidence

    def retrain(self, moment: Moment) -> Round:
        """One `coe retrain`."""
        log, prompt = self.log()
        changes = find_change_points(log)
        candidate, evidence = self.candidate(log, changes)
        done = self.compare(moment, log, prompt, changes, candidate, evidence)
        self.rounds.append(done)
        if done.is_promoted:
            self.take_over(candidate)
        elif done.gate.verdict is Verdict.NEED_MORE:
            self.introduce(evidence)
        return done

    def introduce(self, evidence: Evidence) -> None:
        """Experts that the live router does not know join it to be explored."""
        live = load_artifact(self.settings.root / self.router.version)
        names = newcomers(live, evidence)
        if names:
            made = introduce(self.settings.root, live, evidence, NOW)
            self.take_over(loaded(self.world, made.manifest.version, (*self.router.experts, *names), self.settings))

    def compare(
        self,
        moment: Moment,
        log: LogTable,
        prompt: IntArray,
        changes: tuple[ChangePoint, ...],
        candidate: Router,
        evidence: Evidence,
    ) -> Round:
        """The candidate against the live router, by what production would see and by the truth."""
        free = np.zeros(evidence.matrix.quality.shape, dtype=np.float32)
        comparison = RouterComparison(self.router, candidate, evidence, free, self.rng)
        rows, share = judged_rows(log, changes, comparison)
        rows = sample_rows(log, rows, MAX_JUDGED)
        on_log, theirs = None, choices_of(candidate, self.world)
        if len(rows):
            asked = asked_of(self.world, log.rows(rows), prompt[rows], self.router.experts)
            choices = [
                one.rows(prompt[rows]).among(self.world.traffic.experts, comparison.experts)
                for one in (self.choices, theirs)
            ]
            on_log = comparison.on_log(asked, share[rows], choices)
        probes, labels = evidence.outcomes, self.world.queries[:: len(self.world.queries) // LABELS_SHOWN]
        gate = judge(
            comparison.on_labels(labels, self.world.encoder.encode([query.text for query in labels])),
            comparison.on_outcomes(probes, self.world.encoder.encode(probes.texts), is_held_out=False),
            None if on_log is None else on_log.doubly_robust,
            terms=self.settings.terms.model_copy(update={"decisions_per_row": log.n_rows / max(len(rows), 1)}),
            cost_live_usd=0.0,
            cost_candidate_usd=0.0,
        )
        return Round(
            decisions=self.history.n,
            gate=gate,
            on_log=on_log,
            live_value=moment.value(self.choices.probs),
            candidate_value=moment.value(theirs.probs),
            changes=changes,
        )

    def value(self, moment: Moment) -> float:
        return moment.value(self.choices.probs)


@dataclass
class Averaging:
    """The mean reward of every category and expert over the whole log, the best of which serves at once: no scale, no
    drift, no gate. A cell without rewards has its probes' mean. Explores as the production loop does, uniformly."""

    world: World
    rows: IntArray
    probes: OutcomeTable
    rng: np.random.Generator
    experts: tuple[str, ...]
    retrain_every: int = 500
    n: int = 0

    def __post_init__(self) -> None:
        shape = (len(self.world.categories) + 1, len(self.world.traffic.experts))
        self.sums, self.counts = np.zeros(shape), np.zeros(shape)
        self.prior = measure_quality(self.probes, self.world.categories).quality.astype(np.float64)
        self.update()

    def update(self) -> None:
        mean = np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), self.prior)
        present = np.array([name in self.experts for name in self.world.traffic.experts])
        mean[:, ~present] = -1.0
        explored = EVENLY_EXPLORED * present / present.sum()
        best = np.eye(len(present))[mean.argmax(axis=1)]
        self.policy = ((1 - EVENLY_EXPLORED) * best + explored)[self.rows]

    def serve(self, moment: Moment, t: int) -> float:
        self.experts = moment.experts
        prompts = draw_prompts(moment, t, self.rng)
        chosen = draw_experts(self.policy, prompts, self.rng)
        reward = draw_rewards(moment, prompts, chosen, RESPONSE_RATE, self.rng)
        rated = np.isfinite(reward)
        at = (self.rows[prompts][rated], chosen[rated])
        np.add.at(self.sums, at, reward[rated])
        np.add.at(self.counts, at, 1.0)
        self.n += t
        if self.n % self.retrain_every == 0:
            self.update()
        return float(moment.quality[prompts, chosen].mean())

    def value(self, moment: Moment) -> float:
        return moment.value(self.policy)


@dataclass
class BetaBandit:
    """Thompson sampling, a Beta posterior per category and expert that every thumb updates; probes are its prior."""

    world: World
    rows: IntArray
    probes: OutcomeTable
    rng: np.random.Generator

    def __post_init__(self) -> None:
        evidence = measure_quality(self.probes, self.world.categories)
        count = np.minimum(evidence.count.astype(np.float64), PRIOR_THUMBS)
        reward = THUMB_FLOOR + THUMB_SLOPE * evidence.quality.astype(np.float64)
        self.up, self.down = 1.0 + count * reward, 1.0 + count * (1 - reward)

    def serve(self, moment: Moment, t: int) -> float:
        columns = [self.world.traffic.experts.index(name) for name in moment.experts]
        prompts = draw_prompts(moment, t, self.rng)
        total = 0.0
        for prompt in prompts:
            row = self.rows[prompt]
            chosen = columns[int(self.rng.beta(self.up[row, columns], self.down[row, columns]).argmax())]
            total += moment.quality[prompt, chosen]
            if self.rng.random() < RESPONSE_RATE:
                is_up = self.rng.random() < moment.reward[prompt, chosen]
                (self.up if is_up else self.down)[row, chosen] += 1.0
        return total / t

    def value(self, moment: Moment) -> float:
        """By a hundred draws of the posterior."""
        columns = [self.world.traffic.experts.index(name) for name in moment.experts]
        policy = np.zeros(self.up.shape)
        for _ in range(100):
            drawn = self.rng.beta(self.up[:, columns], self.down[:, columns]).argmax(axis=1)
            policy[np.arange(len(policy)), np.array(columns)[drawn]] += 0.01
        return moment.value(policy[self.rows])
