"""Other learners from the traffic of `benchmarks.loop_arms`: an average of the log, a Beta bandit, and one who is told.

Shapes: n prompts of traffic, m experts of the world.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.loop_arms import Retraining
from benchmarks.loop_fleet import (
    CALM,
    THUMB_FLOOR,
    THUMB_SLOPE,
    IntArray,
    Moment,
    World,
    draw_experts,
    draw_prompts,
    draw_rewards,
)
from coe.router.quality import QualityMatrix
from coe.training.change_points import ChangePoint
from coe.training.expert_map import measure_quality
from coe.training.types import OutcomeTable

EVENLY_EXPLORED = 0.1
"""Share of the traffic that `Averaging` spreads evenly."""

PRIOR_THUMBS = 16.0


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
        reward, _, _ = draw_rewards(moment, prompts, chosen, CALM, self.rng)
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
            if self.rng.random() < CALM.up:
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


class Told(Retraining):
    """Told of every change of an expert, explores with all of its traffic evenly, and follows each candidate unjudged:
    about as much as so many ratings can teach, whatever that costs those who ask."""

    changes: tuple[ChangePoint, ...] = ()
    last: Moment | None = None

    def serve(self, moment: Moment, t: int) -> float:
        before, self.last = self.last or moment, moment
        for number, name in enumerate(self.world.traffic.experts):
            if (before.quality[:, number] != moment.quality[:, number]).any():
                at, rows = float(self.history.n), self.router.categories
                self.changes += tuple(ChangePoint(row, name, at, 0.0, 0.0) for row in rows)
        return super().serve(moment, t)

    def retrain(self, moment: Moment) -> None:
        self.take_over(self.learned(self.probes, self.log()[0], self.changes).matrix, self.experts)

    def take_over(self, evidence: QualityMatrix, experts: tuple[str, ...], newest: QualityMatrix | None = None) -> None:
        super().take_over(evidence, experts, newest)
        present = np.isin(self.world.traffic.experts, experts)
        self.tables[-1] = np.tile(present / present.sum(), (len(self.tables[-1]), 1))
