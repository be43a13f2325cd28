"""Experts that fell: the next best takes over what they answered, without waiting for the gate.

The gate judges by answers from after a change, whoever gave them, and so waits until the next best was tried often
enough since then. But the next best did not change: what was known of it holds, and that the other fell shows in the
many answers of its own. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import ndtri

from training.candidate_verdict import MapChange
from training.change_points import MIN_SIDE, ChangePoint
from training.evidence import Evidence
from training.gate import LEVEL


@dataclass(frozen=True)
class Fall:
    """Moves away from experts that fell. `gain` is the lower end, at one-sided `LEVEL`, of what the traffic gains on
    average."""

    moves: tuple[MapChange, ...]
    gain: float

    @property
    def words(self) -> str:
        told = ", ".join(f"{move.candidate} takes over {move.category} from {move.live}" for move in self.moves)
        return f"{told}, whose quality fell: at least {self.gain:+.3f} by what is known of both"


def changed_rows(live: Mapping[str, str], changes: Sequence[ChangePoint]) -> list[int]:
    """Rows of a map (category -> expert) whose expert changed there."""
    changed = {(change.category, change.expert) for change in changes}
    return [row for row, cell in enumerate(live.items()) if cell in changed]


def find_fall(
    moves: Sequence[MapChange], changes: Sequence[ChangePoint], evidence: Evidence, categories: Sequence[str]
) -> Fall | None:
    """Gain by moves of a map whose changed rows are decided by newer evidence; None if one leaves an expert that did
    not change, or no gain is shown: the differences of both qualities, weighted by the traffic, have to add up to more
    than the normal quantile of their posterior errors, with at least MIN_SIDE answers from after the changes.

    Args:
        categories: rows of the evidence.
    """
    matrix, names = evidence.matrix, evidence.outcomes.experts
    if not {move.live for move in moves} <= {change.expert for change in changes} & set(names):
        return None
    gain = variance = answers = 0.0
    for move in moves:
        row, old, new = categories.index(move.category), names.index(move.live), names.index(move.candidate)
        share = float(matrix.mass[row] / matrix.mass.sum())
        gain += share * float(matrix.quality[row, new] - matrix.quality[row, old])
        variance += share**2 * float(matrix.stderr[row, new] ** 2 + matrix.stderr[row, old] ** 2)
        answers += float(matrix.count[row, old])
    least = gain - float(ndtri(1.0 - LEVEL)) * math.sqrt(variance)
    return Fall(tuple(moves), least) if answers >= MIN_SIDE and least > 0 else None
