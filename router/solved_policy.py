"""A policy that was solved for a router, and the draw by which it explores. Pure: a draw follows from its seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from router.config import ExplorationConfig
from router.policy import MapSolution, exploration_probs
from router.preference import Preference
from router.types import DecisionReason, FloatArray

SEED_BITS = 53
"""A seed passes through JSON readers that keep numbers as doubles."""


@dataclass(frozen=True)
class Policy:
    """A solved policy: the map for its budgets, its pins (row -> expert number) and its exploration.

    With a `preference` every query is judged by itself, and the map is what is shown, pinned and explained.
    """

    solution: MapSolution
    pins: Mapping[int, int] = field(default_factory=dict)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    preference: Preference | None = None

    def expert_of(self, row: int) -> tuple[int, DecisionReason]:
        """The expert for a category, where a pin of experts.yaml wins over the learned map."""
        if row in self.pins:
            return self.pins[row], DecisionReason.PINNED
        return int(self.solution.expert_of[row]), DecisionReason.MAP

    def worth(self, quality: FloatArray, row: int) -> NDArray[np.floating]:
        """(m,) by which experts are compared on one query of a category with predicted quality (m,)."""
        return quality if self.preference is None else self.preference.utility(quality, row)

    def wanted(self, row: int, worth: NDArray[np.floating], eligible: Sequence[int]) -> tuple[int, DecisionReason]:
        """The eligible expert that the policy wants for a query of a category."""
        expert, reason = self.expert_of(row)
        if reason is not DecisionReason.PINNED and self.preference is not None:
            expert, reason = max(eligible, key=lambda e: worth[e]), DecisionReason.QUERY
            if not self.preference.hosted[expert]:
                reason = DecisionReason.NEXT_BEST
        if expert not in eligible:
            expert, reason = max(eligible, key=lambda e: worth[e]), DecisionReason.NEXT_BEST
        return expert, reason

    @cached_property
    def fingerprint(self) -> str:
        """Identity of all that experts.yaml and the artifact's evidence made of this policy, in hexadecimal."""
        digest = hashlib.sha256(repr((self.exploration.model_dump(), sorted(self.pins.items()))).encode())
        digest.update(np.asarray(self.solution.expert_of, dtype=np.int64).tobytes())
        if self.preference is not None:
            digest.update(self.preference.tolls.astype(np.float64).tobytes() + self.preference.hosted.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Draw:
    """The chosen expert's number, why, the probability of each eligible expert, in their order, and the seed of the
    draw; None when nothing was drawn."""

    expert: int
    reason: DecisionReason
    probs: tuple[float, ...]
    seed: int | None = None


def draw_expert(
    policy: Policy,
    row: int,
    eligible: Sequence[int],
    quality: FloatArray,
    rng: np.random.Generator,
    seed: int | None = None,
) -> Draw:
    """The policy's expert for a category, or the best eligible one where that cannot serve, or an explored one.

    Args:
        seed: of the draw, to make an earlier one again; None takes a new one from `rng` where the policy explores.
    """
    wanted, reason = policy.wanted(row, policy.worth(quality, row), eligible)
    explore = policy.exploration
    position = eligible.index(wanted)
    probs = exploration_probs(quality[list(eligible)], position, explore.epsilon, explore.softmax_temperature)
    if explore.epsilon == 0:
        return Draw(wanted, reason, tuple(probs.tolist()))
    if seed is None:
        seed = int(rng.integers(2**SEED_BITS))
    drawn = position_of(probs, seed)
    return Draw(eligible[drawn], reason if drawn == position else DecisionReason.EXPLORED, tuple(probs.tolist()), seed)


def position_of(probs: NDArray[np.float64], seed: int) -> int:
    """Which of m outcomes a seed draws: the inverse of their distribution at a number in [0, 1).

    Python promises the same number for the same seed in every version, which NumPy's generators do not.
    """
    number = random.Random(seed).random()
    below = np.cumsum(probs)
    return int(np.searchsorted(below / below[-1], number, side="right"))
