"""The choice of experts to keep in memory. Shapes: m experts, g bases."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coe.router.policy.budget_price import SLACK
from coe.router.types import BoolArray, IntArray


class Memory(NamedTuple):
    """Sizes in billions of parameters or in bytes. `own` (m,) is that of each expert beside its base, `group` (m,) the
    number of its base, and `bases` (g,) that of each base, which counts once."""

    own: NDArray[np.floating]
    group: IntArray
    bases: NDArray[np.floating]

    def size(self, experts: BoolArray) -> float:
        """Return the size of some experts together; `experts` is a mask of shape (m,)."""
        return float(self.own[experts].sum() + self.bases[np.unique(self.group[experts])].sum())


def kept_in_memory(core: BoolArray, mean_quality: NDArray[np.floating], memory: Memory, limit: float) -> BoolArray:
    """Return the experts of a plan, and others in the memory that they leave within the limit, as a mask of shape (m,).
    Others are added by mean quality (m,), highest first."""
    kept = core.copy()
    for expert in np.argsort(-np.asarray(mean_quality), kind="stable").tolist():
        with_it = kept.copy()
        with_it[expert] = True
        if memory.size(with_it) <= limit * (1 + SLACK):
            kept = with_it
    return kept
