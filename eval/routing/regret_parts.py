"""Regret accounting (ours): where the distance to the best possible choice was lost, in four parts that sum exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

CHOICES: Final = ("query_oracle", "category_oracle", "map_true", "router", "served")
PARTS: Final = ("beyond_categories", "map", "classifier", "serving")


@dataclass(frozen=True)
class RegretColumns:
    """The score of five choices on each of n queries, columns in the order of `CHOICES`.

    `query_oracle`: the best expert of the query. `category_oracle`: the best expert of its true category, in hindsight.
    `map_true`: the router's map applied to the true category. `router`: what it decided. `served`: what answered after
    masks, budgets of the moment and failures.
    """

    scores: Float64Array

    def __post_init__(self) -> None:
        if self.scores.ndim != 2 or self.scores.shape[1] != len(CHOICES):
            raise ValueError(f"scores have shape {self.scores.shape}; expected (n, {len(CHOICES)})")

    @property
    def parts(self) -> Float64Array:
        """(n, 4), columns in the order of `PARTS`: what is lost from each choice to the next. Each may be negative, but
        `beyond_categories` never is. Rows sum to `query_oracle - served`."""
        return self.scores[:, :-1] - self.scores[:, 1:]

    @property
    def total(self) -> Float64Array:
        """(n,) query_oracle - served."""
        return np.asarray(self.scores[:, 0] - self.scores[:, -1])


def regret_columns(scores: Float64Array, experts: dict[str, NDArray[np.int64]]) -> RegretColumns:
    """Looks up five choices, given as expert numbers (n,) by the names of `CHOICES`, in the scores (n, m)."""
    rows = np.arange(len(scores))
    return RegretColumns(np.stack([scores[rows, experts[name]] for name in CHOICES], axis=1).astype(np.float64))
