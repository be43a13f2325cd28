"""Chooses the experts to keep in memory. Shapes: m experts, g bases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coe.router.policy.budget_price import SLACK
from coe.router.types import BoolArray, IntArray


class Memory(NamedTuple):
    """Billions of parameters or bytes: `own` (m,) of each expert beside its base, `group` (m,) the number of its base,
    `bases` (g,) each of which counts once."""

    own: NDArray[np.floating]
    group: IntArray
    bases: NDArray[np.floating]

    def size(self, experts: BoolArray) -> float:
        """Size of some experts (m,) together."""
        return float(self.own[experts].sum() + self.bases[np.unique(self.group[experts])].sum())


def kept_in_memory(core: BoolArray, mean_quality: NDArray[np.floating], memory: Memory, limit: float) -> BoolArray:
    """(m,) the experts of a plan (m,), which fit within the limit, and in the room that they leave others, those of
    higher mean quality (m,) first."""
    kept = core.copy()
    for expert in np.argsort(-np.asarray(mean_quality), kind="stable").tolist():
        with_it = kept.copy()
        with_it[expert] = True
        if memory.size(with_it) <= limit * (1 + SLACK):
            kept = with_it
    return kept
