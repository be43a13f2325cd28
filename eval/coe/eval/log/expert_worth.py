"""The worth of each expert: the quality that the composition would lose without it, on graded prompts.

Shapes: n graded prompts, m experts, k + 1 categories (`general` last).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from coe.base.errors import InfeasibleBudgetError
from coe.base.money import money
from coe.eval.report.numbers import points
from coe.eval.report.page import InTable
from coe.fleet.vllm.command import engine_flags
from coe.fleet.vllm.memory import weights_gib
from coe.router.build import expert_costs
from coe.router.config.composition import CoeConfig, load_config
from coe.router.policy.map_solver import solve_map
from coe.router.quality import QualityMatrix, cautious_quality
from coe.router.types import GENERAL, Float64Array, IntArray, Metric, Record
from coe.training.expert_map import doubt_of, measure_quality, row_numbers
from coe.training.fit_inputs import usable_outcomes
from coe.training.resampling import bootstrap_sums, weighted_mean
from coe.training.types import OutcomeTable

NOTICED_LOSS = 0.005
"""Loss of mean quality that a user would notice: half a point of 100 (ours)."""

MIN_MASS = 1e-9
"""Share of the traffic given to a category without any, so that means over it are defined."""

Removed = frozenset[str]
NOBODY: Removed = frozenset()


class Solved(NamedTuple):
    """A map: the expert of each category (k+1,), numbered as the table's columns, and its mean USD of a query."""

    expert_of: IntArray
    cost_usd: float


class ExpertWorth(Record):
    """The value that one expert adds to the others under the policy `default`.

    `loss` is of mean quality over the traffic, or `unknown` says why there is none. `freed_gb` are weights (16 bits a
    parameter if neither model nor flags name a format). `saved_usd` is the price of 1,000 queries and may be below 0.
    """

    expert: str
    serves: tuple[str, ...] = Field(description="categories that the map gives it")
    loss: Annotated[Metric | None, InTable("Lost without it, points", points, is_difference=True)] = None
    by_category: dict[str, Metric] = Field(default_factory=dict, description="of those that another would serve")
    freed_gb: Annotated[float, InTable("GB freed", "{:,.3g}".format)] = 0.0
    saved_usd: Annotated[float, InTable("Saved per 1,000", money)] = 0.0
    unknown: str = ""

    def loss_per(self, amount: float) -> Metric | None:
        """Return the loss for each unit of what leaving the expert out would save; None if that saves nothing."""
        return None if self.loss is None or amount <= 0 else self.loss.times(1 / amount)


class CompositionWorth(Record):
    """The worth of every expert; `dispensable` names those that could go together without a noticeable loss."""

    n: int = Field(description="graded prompts")
    experts: tuple[ExpertWorth, ...]
    dispensable: tuple[str, ...]
    doubt: str = Field(default="", description="what is probably wrong where no expert is any good; then none can go")


def read_worth(config: Path, outcomes: Path, traffic: Mapping[str, float]) -> CompositionWorth:
    """Measure the worth of an experts.yaml's experts by a folder of outcome tables; `traffic` is category -> queries.

    Raises:
        ConfigError: the file is wrong.
        DataError: no table grades any of its experts, or one cannot be read.
        InfeasibleBudgetError: no map keeps the budgets of the policy `default`.
    """
    loaded = load_config(config)
    table = usable_outcomes(loaded, outcomes)
    return WorthStudy(loaded, table, traffic).measure()


def describe_worth(worth: CompositionWorth) -> str:
    """Name the experts that nobody would miss, or say why the grades do not show any, in one sentence."""
    if worth.doubt:
        return worth.doubt
    if not worth.dispensable:
        return f"No expert is surely dispensable: each loss may be above {100 * NOTICED_LOSS:g} points."
    gone = " and ".join(filter(None, (", ".join(worth.dispensable[:-1]), worth.dispensable[-1])))
    together = " together" if len(worth.dispensable) > 1 else ""
    return f"Nobody would miss {gone}: the loss{together} is surely below {100 * NOTICED_LOSS:g} points."


@dataclass(frozen=True)
class WorthStudy:
    """A study that leaves out each expert in turn, solves the map again, and compares the scores of the two maps.

    Both maps are solved on the prompts that they score, which favours the expert slightly. In simulation
    (tests/training/test_expert_worth.py) the bias is 0.4 points at 16 prompts a category, and the paired bootstrap
    intervals held the truth in 95%. Cross-fitting erred twice as much (benchmarks/LOG.md).

    Args:
        traffic: category -> share or number of queries; by default the table's own mix.
    """

    config: CoeConfig
    table: OutcomeTable
    traffic: Mapping[str, float] = field(default_factory=dict)

    def measure(self) -> CompositionWorth:
        """Measure the worth of every expert; ungraded ones have none."""
        graded = tuple(self.worth_of(name) for name in self.table.experts)
        known = {one.expert for one in graded}
        others = tuple(
            ExpertWorth(expert=name, serves=(), loss=None, unknown="not graded")
            for name in self.config.experts
            if name not in known
        )
        doubt = doubt_of(self.evidence)
        return CompositionWorth(
            n=len(self.table.texts),
            experts=(*graded, *others),
            dispensable=() if doubt else self.dispensable(graded),
            doubt=doubt,
        )

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The learned categories of experts.yaml, and `general` last."""
        return (*self.config.learned_categories, GENERAL)

    @cached_property
    def rows(self) -> IntArray:
        """The row of each prompt's category, of shape (n,)."""
        return row_numbers(self.table, self.categories[:-1])

    @cached_property
    def evidence(self) -> QualityMatrix:
        """The measured quality of every expert on every category, of shape (k+1, m)."""
        return measure_quality(self.table, self.categories[:-1])

    @cached_property
    def mass(self) -> Float64Array:
        """The number of queries of each category, of shape (k+1,)."""
        given = np.array([self.traffic.get(name, 0.0) for name in self.categories], dtype=np.float64)
        if not given.any():
            return self.evidence.mass.astype(np.float64)
        return np.asarray(np.maximum(given, MIN_MASS * given.sum()))

    @cached_property
    def full_map(self) -> Solved:
        """The map of all experts."""
        return self.solve(NOBODY)

    def solve(self, removed: Removed) -> Solved:
        """Solve the map of the experts that are left.

        Raises:
            InfeasibleBudgetError: no map of theirs keeps the budgets.
        """
        left = [i for i, name in enumerate(self.table.experts) if name not in removed]
        names, policy = [self.table.experts[i] for i in left], self.config.policies["default"]
        pins = policy.pin_numbers(self.categories, names)
        part = self.evidence.columns(left)
        costs = expert_costs([self.config.experts[name] for name in names], part)
        quality = cautious_quality(part, costs.cost_usd)
        found = solve_map(quality, self.mass.astype(np.float32), costs, policy.budgets, pins)
        return Solved(np.array(left)[found.expert_of], found.used["cost_usd"])

    def losses(self, without: Solved) -> Float64Array:
        """Return each prompt's score under the full map less its score under another, of shape (n,). It is NaN if
        one of the two experts was not graded on the prompt."""
        at = np.arange(len(self.rows))
        was, is_now = (self.table.scores[at, one.expert_of[self.rows]] for one in (self.full_map, without))
        return np.asarray(was - is_now, dtype=np.float64)

    def mean_loss(self, losses: Float64Array) -> Metric:
        """Average losses (n,) over the traffic's mix; unknown scores (NaN) are left out."""
        known = np.isfinite(losses)
        counts = np.maximum(np.bincount(self.rows[known], minlength=len(self.mass)), 1)
        share = (self.mass / counts)[self.rows[known]]
        columns = np.stack([share * losses[known], share], axis=1)
        return bootstrap_sums(columns, np.arange(len(share)), weighted_mean, np.random.default_rng(0))[0]

    def worth_of(self, name: str) -> ExpertWorth:
        """Measure the loss and the savings without one expert."""
        served = self.full_map.expert_of == self.table.experts.index(name)
        serves = tuple(np.array(self.categories)[served].tolist())
        if len(self.table.experts) == 1:
            return ExpertWorth(expert=name, serves=serves, loss=None, unknown="the only one that was graded")
        try:
            without = self.solve(frozenset({name}))
        except InfeasibleBudgetError as error:
            return ExpertWorth(expert=name, serves=serves, loss=None, unknown=f"needed to keep budgets: {error}")
        losses = self.losses(without)
        if not np.isfinite(losses).any():
            return ExpertWorth(expert=name, serves=serves, loss=None, unknown="graded on no prompt with the others")
        changed = np.flatnonzero(self.full_map.expert_of != without.expert_of)
        by_category = {
            self.categories[row]: self.mean_loss(np.where(self.rows == row, losses, np.nan))
            for row in changed
            if np.isfinite(losses[self.rows == row]).any()
        }
        return ExpertWorth(
            expert=name,
            serves=serves,
            loss=self.mean_loss(losses),
            by_category=by_category,
            freed_gb=self.freed_gb(name),
            saved_usd=1000 * (self.full_map.cost_usd - without.cost_usd),
        )

    def freed_gb(self, name: str) -> float:
        """Return the GB of weights that only this expert keeps in memory: its base too, if no other expert shares
        it."""
        entry, experts = self.config.experts[name], self.config.experts
        is_alone = sum(other.host_group == entry.host_group for other in experts.values()) == 1
        base_gib = weights_gib(entry, engine_flags(self.config, entry)) if is_alone else 0.0
        return base_gib * 2**30 / 1e9

    def dispensable(self, graded: tuple[ExpertWorth, ...]) -> tuple[str, ...]:
        """Return the experts that could go together. Experts are tried from the least missed, and at equal loss from
        the one that frees most. Each is removed if the loss of all removed ones stays surely below `NOTICED_LOSS`."""
        known = [(one, one.loss.value) for one in graded if one.loss is not None]
        removed = NOBODY
        for one, _ in sorted(known, key=lambda pair: (pair[1], -pair[0].freed_gb, -pair[0].saved_usd)):
            wider = removed | {one.expert}
            if len(wider) < len(self.table.experts) and self.is_unnoticed(wider):
                removed = wider
        return tuple(name for name in self.table.experts if name in removed)

    def is_unnoticed(self, removed: Removed) -> bool:
        """Return whether the loss is surely small overall and surely large in no category. It must be known in every
        category that would change its expert: a category without traffic now may have some tomorrow."""
        try:
            without = self.solve(removed)
        except InfeasibleBudgetError:
            return False
        losses = self.losses(without)
        judged = self.rows[np.isfinite(losses)]
        changed = np.flatnonzero(self.full_map.expert_of != without.expert_of)
        if len(judged) == 0 or not np.isin(changed, judged).all():
            return False
        parts = [self.mean_loss(np.where(self.rows == row, losses, np.nan)).interval for row in changed]
        total = self.mean_loss(losses).interval
        return (
            total is not None and total.high < NOTICED_LOSS and all(p is None or p.low <= NOTICED_LOSS for p in parts)
        )
