"""Ways to ask several experts, as training measured them. Shapes: k + 1 rows of the map, m experts, v ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import ArtifactError
from coe.router.model_files.artifact import require_array, require_finite
from coe.router.protocols import ArrayState
from coe.router.strategies.agree import Agree
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray

NEVER = -1.0
"""Quality of what may not be chosen."""

PART = "strategies"
"""Prefix of the arrays in an artifact."""


@dataclass(frozen=True)
class Ways:
    """Strategies of two probes and an arbiter each, and what they gained.

    `experts` (v, 3) has the arbiter last. `quality` (k + 1, v) is what a plan is solved from: a lead over the best
    single expert counts only as far as its errors do not explain it. `asks` (k + 1, v, m) is how often each expert is
    asked per query of a category. `cautious` (k + 1, v) is what a floor counts: all that was measured, less a standard
    error.
    """

    experts: IntArray
    quality: FloatArray
    asks: FloatArray
    cautious: FloatArray

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays that an artifact stores under `strategies.`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def among(self, columns: Sequence[int], others: int = 0) -> Ways:
        """Return the strategies that ask only experts at `columns`, renumbered, beside `others` that are never
        asked."""
        number = {old: new for new, old in enumerate(columns)}
        kept = [v for v, experts in enumerate(self.experts.tolist()) if all(e in number for e in experts)]
        renumbered = [[number[e] for e in self.experts[v].tolist()] for v in kept]
        return Ways(
            experts=np.array(renumbered, dtype=np.int64).reshape(len(kept), 3),
            quality=self.quality[:, kept],
            cautious=self.cautious[:, kept],
            asks=np.pad(self.asks[:, kept][:, :, list(columns)], ((0, 0), (0, 0), (0, others))),
        )

    def strategy(self, v: int) -> Agree:
        one, other, arbiter = self.experts[v].tolist()
        return Agree((one, other), arbiter)


def no_ways(k: int, m: int) -> Ways:
    """Return the strategies of a router of k rows and m experts that learned none."""
    nothing = np.zeros((k, 0), dtype=np.float32)
    return Ways(np.zeros((0, 3), dtype=np.int64), nothing, np.zeros((k, 0, m), dtype=np.float32), nothing)


@dataclass(frozen=True)
class Played:
    """A way on the answers of n prompts: `served` (n,) whose answer, and `asked` (n, m)."""

    served: IntArray
    asked: BoolArray

    def scored(self, scores: FloatArray) -> Float64Array:
        """Return the scores (n,) of what was served, from the experts' `scores` (n, m)."""
        return scores[np.arange(len(scores)), self.served].astype(np.float64)


def play(keys: IntArray, way: Agree) -> Played:
    """Apply a strategy to many prompts, as `way` does to one; a test holds the two together.

    Args:
        keys: (n, m) numbers of answers, below 0 if an expert states none.
    """
    one, other = way.probes
    is_same = (keys[:, one] == keys[:, other]) & (keys[:, one] >= 0)
    order = np.array([way.arbiter, one, other])
    served = np.where(is_same, one, order[(keys[:, order] >= 0).argmax(axis=1)])
    asked = np.zeros(keys.shape, dtype=bool)
    asked[:, way.probes] = True
    asked[:, way.arbiter] = ~is_same
    return Played(served, asked)


def play_choices(keys: IntArray, choice: IntArray, ways: Ways) -> Played:
    """Apply each prompt's choice (n,): expert e of m alone, or strategy `e - m`. `keys` are those of `play`."""
    m = keys.shape[1]
    served = np.minimum(choice, m - 1)
    asked = np.eye(m, dtype=bool)[served]
    for each in np.unique(choice[choice >= m]).tolist():
        own = choice == each
        played = play(keys[own], ways.strategy(each - m))
        served[own], asked[own] = played.served, played.asked
    return Played(served, asked)


def learned_ways(state: ArrayState, k: int, m: int) -> Ways:
    """Return the strategies of an artifact with k categories and m experts; experts that joined later are never asked.
    It raises ArtifactError if an array is missing, of the wrong shape, or names an expert that there is not."""
    experts = np.asarray(require_array(state, "experts", (None, 3)), dtype=np.int64)
    v, asks = len(experts), require_finite(state, "asks", (k + 1, len(experts), None))
    known = asks.shape[2]
    if known > m or ((experts < 0) | (experts >= known)).any():
        raise ArtifactError(f"array 'experts' names an expert beyond the {min(known, m)} of the router")
    quality = require_finite(state, "quality", (k + 1, v))
    cautious = require_finite(state, "cautious", (k + 1, v)) if "cautious" in state else quality
    return Ways(experts, quality, asks, cautious).among(range(known), m - known)
