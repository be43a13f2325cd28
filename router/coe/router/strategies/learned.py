"""Learned parts of strategies: the weights of votes, and ways to ask with what they gained.

Shapes: d dimensions, k + 1 rows of the map, m experts, v variants of a strategy, l experts that a variant may ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import ArtifactError
from coe.router.artifact import require_array, require_finite
from coe.router.protocols import ArrayState
from coe.router.strategies.machines import SIGNALS, TELLS, Agree, Escalate, Sequential, Vote, Votes
from coe.router.strategies.types import Strategy, StrategyName
from coe.router.types import FloatArray, IntArray

NOBODY = -1
"""Fills the places of a variant that asks fewer experts than another."""

NEVER = -1.0
"""Quality of what may not be chosen."""

PART = "strategies"
"""Prefix of the arrays in an artifact."""

LEARNED = tuple(name for name in StrategyName if name is not StrategyName.SINGLE)


def with_bias(embeddings: FloatArray) -> FloatArray:
    """(n, d + 1): a 1 before each embedding."""
    return np.concatenate([np.ones((len(embeddings), 1), dtype=np.float32), embeddings], axis=1)


@dataclass(frozen=True)
class Variants:
    """Ways to carry out one strategy, and what each gained out of fold.

    `experts` (v, l) in the order of asking; `by_weight` (v,) 1 where they are instead asked in the order of their
    votes' weights on the query; `rules` (v, l, SIGNALS + TELLS) for going on after so many replies. `quality`
    (k + 1, v) is what a plan is solved from, in which a lead over the best single expert counts only as far as its
    errors do not explain it; `asks` (k + 1, v, m) how often each expert is asked per query of a category.
    """

    experts: IntArray
    by_weight: IntArray
    rules: FloatArray
    quality: FloatArray
    asks: FloatArray

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def among(self, columns: Sequence[int], others: int = 0) -> Variants:
        """The variants that ask none but the experts at `columns`, which are numbered again, beside that many `others`
        that are never asked."""
        number = {old: new for new, old in enumerate(columns)} | {NOBODY: NOBODY}
        kept = [v for v, experts in enumerate(self.experts) if all(int(e) in number for e in experts)]
        renumbered = [[number[int(e)] for e in self.experts[v]] for v in kept]
        return Variants(
            experts=np.array(renumbered, dtype=np.int64).reshape(len(kept), self.experts.shape[1]),
            by_weight=self.by_weight[kept],
            rules=self.rules[kept],
            quality=self.quality[:, kept],
            asks=np.pad(self.asks[:, kept][:, :, list(columns)], ((0, 0), (0, 0), (0, others))),
        )

    def asked(self) -> list[tuple[int, ...]]:
        """(v,) all whom each variant may ask."""
        return [self.asked_by(v) for v in range(len(self.experts))]

    def asked_by(self, v: int) -> tuple[int, ...]:
        return tuple(int(e) for e in self.experts[v] if e != NOBODY)


@dataclass(frozen=True)
class LearnedStrategies:
    """`weights` (d + 1, m + 1) of votes and, last, the doubt; `variants` of every strategy but `single`."""

    weights: FloatArray
    variants: Mapping[StrategyName, Variants]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """As stored in an artifact under `strategies.`."""
        own = {f"{name}.{part}": a for name, found in self.variants.items() for part, a in found.arrays().items()}
        return {"weights": self.weights, **own}

    def among(self, columns: Sequence[int], others: int = 0) -> LearnedStrategies:
        """The same, restricted to the experts at `columns`, followed by that many `others` without a vote."""
        without_vote = np.zeros((len(self.weights), others), dtype=np.float32)
        return LearnedStrategies(
            np.concatenate([self.weights[:, list(columns)], without_vote, self.weights[:, -1:]], axis=1),
            {name: found.among(columns, others) for name, found in self.variants.items()},
        )

    def votes(self, embedding: FloatArray) -> Votes:
        """The weights of votes on a query with embedding (d,) or (1, d)."""
        weights = with_bias(embedding.reshape(1, -1)) @ self.weights
        listed = [float(weight) for weight in weights[0]]
        return Votes(tuple(listed[:-1]), listed[-1])

    def strategy(self, name: StrategyName, v: int, embedding: FloatArray) -> Strategy:
        """Variant `v` for a query."""
        own, votes = self.variants[name], self.votes(embedding)
        experts = own.asked_by(v)
        if own.by_weight[v]:
            experts = tuple(sorted(experts, key=lambda e: (-votes.weights[e], e)))
        rules = tuple(tuple(rule) for rule in own.rules[v].tolist())
        if name is StrategyName.VOTE:
            return Vote(experts, votes)
        if name is StrategyName.AGREE:
            return Agree((experts[0], experts[1]), experts[2], votes)
        if name is StrategyName.ESCALATE:
            second = experts[1] if len(experts) == 3 else None
            return Escalate(experts[0], experts[-1], rules[0], votes, second)
        return Sequential(experts, tuple(rule[:SIGNALS] for rule in rules[: len(experts) - 1]), votes)


def learned_strategies(state: ArrayState, k: int, m: int) -> LearnedStrategies | None:
    """Learned parts in an artifact of k categories and m experts holds; None where it was trained without answers.

    Raises:
        ArtifactError: an array is missing, of the wrong shape, or names an expert that there is not.

    Experts that joined the router since have no vote.
    """
    if not state:
        return None
    weights = require_finite(state, "weights", (None, None))
    known = weights.shape[1] - 1
    fitted = LearnedStrategies(weights, {name: variants_from(state, name, k, known) for name in LEARNED})
    return fitted if known == m else fitted.among(range(known), m - known)


def variants_from(state: ArrayState, name: StrategyName, k: int, m: int) -> Variants:
    experts = np.asarray(require_array(state, f"{name}.experts", (None, None)), dtype=np.int64)
    v, most = experts.shape
    if ((experts < NOBODY) | (experts >= m)).any():
        raise ArtifactError(f"array '{name}.experts' names an expert beyond the {m} of the router")
    return Variants(
        experts=experts,
        by_weight=np.asarray(require_array(state, f"{name}.by_weight", (v,)), dtype=np.int64),
        rules=require_finite(state, f"{name}.rules", (v, most, SIGNALS + TELLS)),
        quality=require_finite(state, f"{name}.quality", (k + 1, v)),
        asks=require_finite(state, f"{name}.asks", (k + 1, v, m)),
    )
