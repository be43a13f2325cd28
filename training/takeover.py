"""Categories that change hands without waiting for the gate: the next best takes over from an expert that fell, and an
expert that is new to the router begins where it is known to be better.

The gate judges by answers from after a change, whoever gave them, and so waits until the other expert was tried often
enough since then. But the next best did not change, so what was known of it holds, and that the other fell shows in the
many answers of its own; and a new expert was graded, while the one that serves has been rated for long. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from training.candidate_verdict import MapChange
from training.change_points import MIN_SIDE, ChangePoint
from training.evidence import Evidence
from training.gate import LEVEL

MOST_VARIANCE = 0.25
"""Of a score in [0, 1]."""


@dataclass(frozen=True)
class Reasons:
    """Cells (category, expert) that changed, and experts that are `new` to the live router."""

    changed: frozenset[tuple[str, str]]
    new: frozenset[str]

    @classmethod
    def of(cls, changes: Sequence[ChangePoint], evidence: Evidence, known: Collection[str]) -> Reasons:
        """Reasons of a round; the live router knows the experts `known`."""
        cells = frozenset((change.category, change.expert) for change in changes)
        return cls(cells, frozenset(evidence.outcomes.experts) - frozenset(known))

    def rows(self, live: dict[str, str], candidate: dict[str, str]) -> list[int]:
        """Rows of the live map (category -> expert) whose expert changed there, or that the candidate gives to a new
        one."""
        return [
            row
            for row, cell in enumerate(live.items())
            if cell in self.changed or candidate.get(cell[0], cell[1]) in self.new
        ]


@dataclass(frozen=True)
class Takeover:
    """Moves of a map. `gain` is the lower end, at one-sided `LEVEL`, of what the traffic gains on average."""

    moves: tuple[MapChange, ...]
    gain: float

    @property
    def words(self) -> str:
        told = ", ".join(f"{move.candidate} takes over {move.category} from {move.live}" for move in self.moves)
        return f"{told}: at least {self.gain:+.3f} by what is known of both"


def find_takeover(
    moves: Sequence[MapChange], why: Reasons, evidence: Evidence, categories: Sequence[str]
) -> Takeover | None:
    """Gain by the moves of a map whose `Reasons.rows` are decided by newer evidence. None if a move neither leaves an
    expert that changed somewhere nor goes to a new one, or no gain is shown: the differences of both qualities,
    weighted by the traffic, have to add up to more than the normal quantile of their posterior errors, with at least
    MIN_SIDE answers of those that changed, since then, and of the new ones. A cell's error takes the expert's mean, to
    which it is shrunk, as known; that mean's error is added, by at most the weight that it has in the cell.

    Args:
        categories: rows of the evidence.
    """
    matrix, names, fell = evidence.matrix, evidence.outcomes.experts, {expert for _, expert in why.changed}
    gain = variance = answers = 0.0
    exposed, borrowed = np.zeros(len(names)), 1.0 - matrix.count * matrix.stderr**2 / MOST_VARIANCE
    for move in moves:
        if move.live not in names or not (move.live in fell or move.candidate in why.new):
            return None
        row, old, new = categories.index(move.category), names.index(move.live), names.index(move.candidate)
        share = float(matrix.mass[row] / matrix.mass.sum())
        gain += share * float(matrix.quality[row, new] - matrix.quality[row, old])
        variance += share**2 * float(matrix.stderr[row, new] ** 2 + matrix.stderr[row, old] ** 2)
        exposed[[old, new]] += share * np.maximum(borrowed[row, [old, new]], 0.0)
        answers += float(matrix.count[row, new if move.candidate in why.new else old])
    variance += float((exposed**2 * MOST_VARIANCE / np.maximum(matrix.count.sum(axis=0), 1.0)).sum())
    least = gain - float(ndtri(1.0 - LEVEL)) * math.sqrt(variance)
    return Takeover(tuple(moves), least) if answers >= MIN_SIDE and least > 0 else None
