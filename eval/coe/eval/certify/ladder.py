"""The fixed sequence of plans to test: a policy's own plan and ever safer ones, from expensive to cheap, with their
reference.

Shapes: n prompts, k rows of the map, m experts of the router, c plans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coe.base.errors import ConfigError, InfeasibleBudgetError
from coe.router.config.policy import QUALITY_FLOOR, PolicyConfig
from coe.router.pipeline import Router
from coe.router.policy.budget_price import price_name
from coe.router.policy.map_solver import ExpertCosts
from coe.router.policy.solved_policy import SolvedPolicy
from coe.router.strategies.learned import Ways, no_ways
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

PLAN_STEPS = 8
"""Floors between the safest plan and the policy's own: more steps cost no level, each is one more to show (ours)."""

MIN_SAVING = 0.05
"""Smallest predicted share of the price that a plan must save (ours). A plan that saves next to nothing would have
to be shown before those that save more."""

REFERENCE = ".reference"
"""Name of the policy that serves the reference of the plans; no policy of experts.yaml begins with a dot."""

Load = Callable[[Mapping[str, PolicyConfig]], Router]
"""The type of a function that loads the router with more policies."""


@dataclass(frozen=True)
class Choices:
    """The choice for each prompt, under the reference (first column) and each plan. `choice` (n, 1 + c) holds the
    number of an expert, or m + w for the way w, which asks several. `row` (n,) is the row of the map."""

    choice: IntArray
    row: IntArray

    @property
    def differs(self) -> BoolArray:
        """True where a plan's choice differs from the reference's, (n, c). Elsewhere the gain is 0 and needs no
        grade."""
        return np.asarray(self.choice[:, 1:] != self.choice[:, :1])


@dataclass(frozen=True)
class Ladder:
    """The plans in the router, from expensive to cheap: their `names` and the `floors` that they were solved for,
    both (c,). `of` names their reference, an expert or a policy."""

    router: Router
    of: str
    names: tuple[str, ...]
    floors: tuple[float, ...]

    @cached_property
    def ways(self) -> Ways:
        """The router's ways to ask several experts; empty if training knew no answers."""
        return self.router.ways or no_ways(len(self.router.categories), len(self.router.experts))

    @property
    def policies(self) -> list[SolvedPolicy]:
        return [self.router.policy(name) for name in (REFERENCE, *self.names)]

    @cached_property
    def alone(self) -> IntArray:
        """The expert that serves a row if no answers can be compared, of shape (k, 1 + c)."""
        rows = range(len(self.router.categories))
        return np.array([[one.expert_of(row)[0] for one in self.policies] for row in rows], dtype=np.int64)

    @cached_property
    def by_row(self) -> IntArray:
        """The choice (k, 1 + c) for each row, as in `Choices.choice`: a map decides by the row alone."""
        plans = [one.plan for one in self.policies]
        columns = [self.alone[:, i] if plan is None else plan.choice_of for i, plan in enumerate(plans)]
        return np.stack(columns, axis=1)

    @cached_property
    def price(self) -> Float64Array:
        """The price (k, m + ways) of every expert and way: USD, or active parameters if no expert has a price."""
        alone = np.broadcast_to(getattr(self.costs, self.key), self.costs.cost_usd.shape)
        several = np.einsum("kvm,km->kv", self.ways.asks, alone)
        return np.concatenate([alone, several], axis=1, dtype=np.float64)

    @property
    def key(self) -> str:
        """The name of the amount that plans are meant to save: `cost_usd` or `active_params`."""
        return price_name(self.costs.cost_usd)

    @property
    def costs(self) -> ExpertCosts:
        costs = self.router.costs
        assert costs is not None, "a router that policies are solved for knows costs"
        return costs

    def asked(self, plan: int) -> list[str]:
        """Return the names of the experts that a plan or the reference may ask."""
        m, found = len(self.router.experts), set[int]()
        for choice in np.unique(self.by_row[:, [0, plan + 1]]).tolist():
            found |= {choice} if choice < m else set(self.ways.strategy(choice - m).experts)
        return sorted(self.router.experts[e] for e in found)

    def choices(self, embeddings: FloatArray) -> Choices:
        """Return the choices of the reference and every plan for queries with embeddings of shape (n, d)."""
        judged = self.router.judge(embeddings, self.router.predict_categories(embeddings))
        rows = np.array([each.row for each in judged], dtype=np.int64)
        return Choices(self.by_row[rows], rows)


def build_ladder(load: Load, name: str, policies: Mapping[str, PolicyConfig]) -> Ladder:
    """Build the plans of policy `name` that are predicted to be clearly cheaper than the reference of its floor.

    Args:
        load: loads the router with the policies of experts.yaml and these.

    Raises:
        ConfigError: the policy has no floor, or no plan is cheaper.
    """
    policy = policies[name]
    floor = policy.quality_floor
    if floor is None:
        raise ConfigError(f"policies.{name}: has no {QUALITY_FLOOR}, so there is nothing to certify; write one")

    def at(within: float) -> PolicyConfig:
        return policy.model_copy(update={QUALITY_FLOOR: floor.model_copy(update={"within": within})})

    plain = load({REFERENCE: at(1.0)})
    found = plain.policy(REFERENCE).floor
    assert found is not None, "it was asked for"
    reference = policies.get(found.of, PolicyConfig(pins=dict.fromkeys(plain.categories, found.of)))
    try:
        load({REFERENCE: at(-1.0)})
        safest = -1.0
    except InfeasibleBudgetError as error:
        safest = min(error.smallest, floor.within)
    steps = {
        f"{name} {i}": each for i, each in enumerate(np.linspace(safest, floor.within, PLAN_STEPS).round(6).tolist())
    }
    router = load({REFERENCE: reference, **{step: at(each) for step, each in steps.items()}})
    ladder = Ladder(router, found.of, tuple(steps), tuple(steps.values()))
    most, price = router.policy(REFERENCE).predicted[ladder.key], dict[str, float]()
    for step in steps:
        solved, seen = router.policy(step), {router.policy(each).fingerprint for each in price}
        if solved.fingerprint not in seen and solved.predicted[ladder.key] < (1 - MIN_SAVING) * most:
            price[step] = solved.predicted[ladder.key]
    if not price:
        raise ConfigError(f"policies.{name}: no plan is predicted to be cheaper than {found.of}, so nothing is saved")
    kept = sorted(price, key=lambda step: -price[step])
    return Ladder(router, found.of, tuple(kept), tuple(steps[step] for step in kept))
