"""A policy that was solved for a router, and the draw by which it explores. Pure: a draw follows from its seed."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from coe.base.errors import NoEligibleExpertError
from coe.router.config.policy import Floor
from coe.router.policy.exploration import Exploration, scale_within
from coe.router.policy.map_solver import MapSolution
from coe.router.policy.preference import Preference
from coe.router.policy.strategy_plan import StrategyPlan
from coe.router.types import DecisionReason, FloatArray

SEED_BITS = 52
FIRST_SEED = 2**53
"""The smallest seed; seeds are even numbers from it to its double. JSON readers that keep numbers as doubles pass them
on. A seed's place in between is the draw's number in [0, 1)."""


@dataclass(frozen=True)
class SolvedPolicy:
    """A solved policy: the map for its budgets, its pins (row -> expert number) and its exploration, None for none.

    With a `plan` some categories are served by several experts. `unknown_languages` is the expert of queries in
    languages that the labelled queries lack; None: they are served as all others. `floor` is the quality it was solved
    for.

    With a `preference` every query is judged on its own, and the map is what is shown, pinned and explained.

    There is one order of experts for a query. The planned one is first: the pin, else the map's expert or the one of
    highest utility. Then come those that may stand in, by predicted quality less what the budgets' prices take. Next
    best, failover, runner-up and exploration all follow it; an expert outside it never serves.
    """

    solution: MapSolution
    pins: Mapping[int, int] = field(default_factory=dict)
    exploration: Exploration | None = None
    preference: Preference | None = None
    plan: StrategyPlan | None = None
    unknown_languages: int | None = None
    floor: Floor | None = None

    @property
    def predicted(self) -> Mapping[str, float]:
        """Mean `quality` per query, and what is used of each budget, by the plan or else by the map."""
        return self.plan.used if self.plan else {"quality": self.solution.quality, **self.solution.used}

    def expert_of(self, row: int) -> tuple[int, DecisionReason]:
        """Return the expert for a category and the reason; a pin of experts.yaml wins over the learned map."""
        if row in self.pins:
            return self.pins[row], DecisionReason.PINNED
        return int(self.solution.expert_of[row]), DecisionReason.MAP

    def planned(self, row: int, quality: FloatArray) -> tuple[int, DecisionReason]:
        """Return the expert planned for a query of a category with predicted quality (m,), if all could serve."""
        expert, reason = self.expert_of(row)
        if reason is DecisionReason.PINNED or self.preference is None:
            return expert, reason
        return int(self.preference.utility(quality, row).argmax()), DecisionReason.QUERY

    def bars(self, row: int, planned: int, m: int) -> tuple[str | None, ...]:
        """Return why each of m experts may not serve queries of a category whose plan is `planned`; None if it may."""
        if self.preference is not None:
            bars = self.preference.bars(row)
        elif self.solution.fallbacks is not None:
            bars = self.solution.fallbacks.barred[row]
        else:
            bars = (None,) * m
        return tuple(None if expert == planned else bar for expert, bar in enumerate(bars))

    def order(self, row: int, quality: FloatArray) -> list[int]:
        """Return the experts that may serve a query of a category with predicted quality (m,), the planned first."""
        planned, _ = self.planned(row, quality)
        if self.preference is not None:
            worth = self.preference.worth(quality, row)
        elif self.solution.fallbacks is not None:
            worth = quality - self.solution.fallbacks.tolls[row]
        else:
            worth = np.asarray(quality, dtype=np.float64)
        bars = self.bars(row, planned, len(quality))
        others = [e for e, bar in enumerate(bars) if bar is None and e != planned]
        return [planned, *sorted(others, key=lambda e: -worth[e])]

    def exploring(
        self, exploration: Exploration, budget: float, quality: FloatArray, rows: Sequence[int], mass: FloatArray
    ) -> SolvedPolicy:
        """Return the policy with as much of the exploration as its budget, a mean loss, pays for.

        Args:
            quality: (n, m) predicted qualities that stand for the traffic; `rows` (n,) the row of the map of each.
            mass: (n,) how much of the traffic each is; need not be normalized.
        """
        free = [i for i, row in enumerate(rows) if row not in self.pins]
        orders = [self.order(rows[i], quality[i]) for i in free]
        if self.preference is None:
            found = {
                rows[i]: exploration.challenger(rows[i], quality[i], o[0], o[1:])
                for i, o in zip(free, orders, strict=True)
            }
            challengers = {row: expert for row, expert in found.items() if expert is not None}
            exploration = replace(exploration, challengers=challengers)
        weighed = [exploration.weighed(rows[i], quality[i], o[0], o[1:]) for i, o in zip(free, orders, strict=True)]
        if not weighed:
            return self
        weight, loss = (np.stack(part) for part in zip(*weighed, strict=True))
        part = np.asarray(mass, dtype=np.float64)
        part = part[free] / max(float(part.sum()), 1e-12)
        most = np.array([exploration.most(rows[i]) for i in free])
        scaled = replace(exploration, scale=scale_within(budget, weight, loss, part, most))
        shares = np.stack([scaled.shares(rows[i], quality[i], o[0], o[1:]) for i, o in zip(free, orders, strict=True)])
        planned = np.array([order[0] for order in orders])
        share = float(part @ (1.0 - shares[np.arange(len(planned)), planned]))
        lost = float(part @ (shares * loss * (weight > 0)).sum(axis=1))
        return replace(self, exploration=replace(scaled, share=share, loss=lost))

    @cached_property
    def fingerprint(self) -> str:
        """Identity of all that experts.yaml and the artifact's evidence made of this policy, in hexadecimal."""
        digest = hashlib.sha256(repr((sorted(self.pins.items()), self.unknown_languages)).encode())
        if self.exploration is not None:
            digest.update(self.exploration.identity)
        digest.update(np.asarray(self.solution.expert_of, dtype=np.int64).tobytes())
        others = self.solution.fallbacks
        if others is not None:
            digest.update(others.tolls.tobytes() + repr(others.barred).encode())
        if self.preference is not None:
            digest.update(self.preference.tolls.astype(np.float64).tobytes() + self.preference.hosted.tobytes())
            digest.update(repr(self.preference.barred).encode())
        if self.plan is not None:
            digest.update(repr(self.plan.choice_of.tolist()).encode())
        return digest.hexdigest()


class Draw(NamedTuple):
    """The chosen expert's number, why, and the seed of the draw, None when nothing was drawn."""

    expert: int
    reason: DecisionReason
    seed: int | None = None


@dataclass(frozen=True)
class ActionDistribution:
    """All of a draw but its chance. `wanted` serves for `reason` unless another expert is explored. `probs` are of the
    `eligible`, in their order; `ranking` is the order in which they would serve."""

    eligible: tuple[int, ...]
    wanted: int
    reason: DecisionReason
    probs: tuple[float, ...]
    ranking: tuple[int, ...]
    explores: bool

    @cached_property
    def below(self) -> list[float]:
        """The distribution function of `probs`."""
        return distribution(self.probs)

    @cached_property
    def certain(self) -> Draw | None:
        """The draw that needs no chance; None where an expert may be explored."""
        return None if self.explores else Draw(self.wanted, self.reason)

    def draw(self, rng: np.random.Generator, seed: int | None = None) -> Draw:
        """Draw one expert, which may be an explored one.

        Args:
            seed: of an earlier draw, to repeat it; None takes a new one from `rng`.
        """
        if seed is None:
            # As `rng.integers(2**52)` gives, in a tenth of its time.
            seed = FIRST_SEED + 2 * (rng.bit_generator.random_raw() >> (64 - SEED_BITS))
        drawn = self.eligible[position_of(self.below, seed)]
        return Draw(drawn, self.reason if drawn == self.wanted else DecisionReason.EXPLORED, seed)


def action_distribution(
    policy: SolvedPolicy, row: int, eligible: Sequence[int], quality: FloatArray
) -> ActionDistribution:
    """Return the distribution over the policy's order: the first expert that can serve, or an explored one. A pin is
    never replaced by exploration, nor is a fallback, whose query has lost its best expert already.

    Args:
        eligible: experts that can serve the request; those outside the policy's order get probability 0.

    Raises:
        NoEligibleExpertError: no expert of the policy's order is eligible.
    """
    planned, reason = policy.planned(row, quality)
    ranking = tuple(expert for expert in policy.order(row, quality) if expert in eligible)
    if not ranking:
        bars = policy.bars(row, planned, len(quality))
        raise NoEligibleExpertError({f"expert {e}": str(bars[e]) for e in eligible})
    wanted = ranking[0]
    if wanted != planned:
        reason = DecisionReason.NEXT_BEST
    is_planned = wanted == planned and reason is not DecisionReason.PINNED
    probs = np.zeros(len(quality))
    probs[wanted] = 1.0
    if policy.exploration is not None and is_planned:
        order = policy.order(row, quality)
        shares = policy.exploration.shares(row, quality, planned, order[1:])
        probs = np.where(np.isin(np.arange(len(quality)), ranking), shares, 0.0)
        # Nobody is tried more often because somebody else is down. A sum of floats may be a little more than 1.
        probs[planned] = max(probs[planned] + 1.0 - probs.sum(), 0.0)
    explores = bool(probs[planned] < 1.0) and is_planned
    return ActionDistribution(tuple(eligible), wanted, reason, tuple(probs[list(eligible)].tolist()), ranking, explores)


def distribution(probs: Sequence[float]) -> list[float]:
    """Return the cumulative probabilities of m outcomes."""
    below = np.cumsum(probs)
    return [float(each) for each in below / below[-1]]


def position_of(below: Sequence[float], seed: int) -> int:
    """Return the outcome that a seed draws: the inverse of the distribution at a number in [0, 1)."""
    return bisect_right(below, seed / FIRST_SEED - 1)
