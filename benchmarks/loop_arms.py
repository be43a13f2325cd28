"""`coe retrain` on simulated traffic, and nobody who learns from it.

`Retraining` calls what the command calls: the evidence, the bets, the map; only SQL and stage 1 are left out.

Shapes: n prompts of traffic, m experts of the world, t decisions.
"""

from __future__ import annotations

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
from coe.router.quality import QualityMatrix
from coe.training.bets import Bets, bets_on
from coe.training.change_points import ChangePoint, find_change_points
from coe.training.evidence import Evidence, gather_evidence
from coe.training.expert_map import measure_quality
from coe.training.log_table import LogTable
from coe.training.types import OutcomeTable


@dataclass(frozen=True)
class Round:
    """One retraining: the capital, true gains of the rows that it moved, and the share of them that are for the worse;
    what the router in force wants is worth `before` and `after`."""

    decisions: int
    capital: float
    n_bets: int
    moved: dict[int, float]
    before: float
    after: float


@dataclass
class Retraining:
    """The production loop over a world. `noise` (k+1, m) spoils what names challengers, in every round alike."""

    world: World
    stage: Stage
    settings: Settings
    rng: np.random.Generator
    experts: tuple[str, ...]
    is_learning: bool = True
    noise: Float64Array | None = None
    history: History = field(default_factory=History)
    tables: list[Float64Array] = field(default_factory=list)
    planned: list[IntArray] = field(default_factory=list)
    qualities: list[Float64Array] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    judged: list[Float64Array] = field(default_factory=list)
    since: float = 0.0

    def __post_init__(self) -> None:
        self.judges = np.random.default_rng(int(self.rng.integers(2**40)))
        self.compared = np.zeros(len(self.world.traffic.experts), dtype=np.int64)
        self.rows = self.stage.rows(self.world.traffic)
        self.take_over(measure_quality(self.probes, self.world.categories), self.experts)

    @property
    def probes(self) -> OutcomeTable:
        return without(self.world.probes, [e for e in self.world.probes.experts if e not in self.experts])

    def take_over(self, evidence: QualityMatrix, experts: tuple[str, ...]) -> None:
        self.evidence = evidence
        self.router = router_of(self.stage, evidence, experts, self.settings)
        self.wanted = wanted_by(self.router, self.world)
        self.tables.append(shares_of(self.router, self.world))
        self.planned.append(self.wanted)
        quality = np.zeros((len(self.wanted), len(self.world.traffic.experts)))
        quality[:, [self.world.traffic.experts.index(name) for name in experts]] = evidence.quality
        self.qualities.append(quality)

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

    def log(self) -> LogTable:
        """The answers whose ratings have come as a log."""
        columns = self.history.columns()
        version, category, expert = (columns[name].astype(np.int64) for name in ("version", "category", "expert"))
        rated = np.flatnonzero(np.isfinite(columns["reward"]) & (columns["seen"] < self.history.n))
        rows, experts = self.router.categories, self.world.traffic.experts
        counts = np.bincount(category, minlength=len(rows))
        at = np.arange(len(rated))
        chance = np.stack(self.tables)[version[rated], category[rated]]
        planned = np.stack(self.planned)[version[rated], category[rated]]
        others = chance.copy()
        others[at, planned] = 0.0
        challenger = others.argmax(axis=1)
        quality = np.stack(self.qualities)[version[rated], category[rated]]
        return logged(
            columns,
            rated,
            rows,
            experts,
            reward=columns["reward"][rated],
            weight=reply_weights(category, expert, rated),
            planned=planned.astype(np.int32),
            challenger=np.where(others[at, challenger] > 0, challenger, -1).astype(np.int32),
            planned_chance=chance[at, planned],
            challenger_chance=others[at, challenger],
            estimated_gain=quality[at, challenger] - quality[at, planned],
            traffic=dict(zip(rows, counts.tolist(), strict=True)),
            n_rows=self.history.n,
            judged=judged_log(columns, self.judged, rows, experts) if self.judged else None,
        )

    def learned(self, log: LogTable, changes: tuple[ChangePoint, ...]) -> Evidence:
        """Evidence of a round; spoiled where that is asked for."""
        found = gather_evidence(self.probes, log, self.world.categories, changes)
        return found if self.noise is None else replace(found, matrix=spoiled(found.matrix, self.noise))

    def retrain(self, moment: Moment) -> None:
        """One `coe retrain`."""
        log, names = self.log(), self.world.traffic.experts
        changes = find_change_points(log)
        evidence, before = self.learned(log, changes), self.wanted.copy()
        bets = self.bets(log, changes)
        moves, serving = bets.moves(), before.copy()
        gains = {row: self.gain_of(moment, row, before[row], new) for row, new in moves.items()}
        serving[list(moves)] = list(moves.values())
        if moves:
            self.since = float(self.history.n)
        experts = evidence.outcomes.experts
        numbers = np.array([experts.index(names[own]) for own in serving], dtype=np.float32)
        value = self.value(moment)
        self.take_over(replace(evidence.matrix, serving=numbers), experts)
        self.rounds.append(Round(self.history.n, bets.capital, len(bets), gains, value, self.value(moment)))

    def bets(self, log: LogTable, changes: tuple[ChangePoint, ...]) -> Bets:
        names = self.world.traffic.experts
        free = np.zeros((len(self.wanted), len(names)))
        return bets_on(log, self.router.categories, names, self.wanted, free, self.since, changes)

    def gain_of(self, moment: Moment, row: int, old: int, new: int) -> float:
        """True gain of the traffic where one expert serves a row in place of another."""
        weighted = moment.mix * (self.rows == row)
        return float(weighted @ (moment.quality[:, new] - moment.quality[:, old]))

    def value(self, moment: Moment) -> float:
        """Mean true score of what the router in force serves, explored experts included."""
        return moment.value(self.tables[-1][self.rows])


def spoiled(matrix: QualityMatrix, noise: Float64Array) -> QualityMatrix:
    """Evidence that is wrong by this noise (k+1, m): that of a fit that went astray."""
    quality = np.clip(matrix.quality + noise, 0.0, 1.0).astype(np.float32)
    return replace(matrix, quality=quality, stderr=np.full_like(matrix.stderr, 1e-3))
