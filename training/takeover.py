"""Categories that change hands without waiting for the gate: the next best takes over from an expert that fell.

The gate judges by answers from after a change, whoever gave them, and so waits until the other expert was tried often
enough since then. But the next best did not change, so what was known of it holds, and that the other fell shows in the
many answers of its own. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from router.types import IntArray
from training.candidate_verdict import MapChange
from training.change_points import MIN_SIDE, ChangePoint
from training.evidence import Evidence
from training.gate import LEVEL
from training.log_table import LogTable

MOST_VARIANCE = 0.25
"""Of a score in [0, 1]."""

LEAST_SHARE = 0.01
"""Share of the answers of the moved categories from which on a key is left out in turn (ours)."""


@dataclass(frozen=True)
class Takeover:
    """Moves of a map. `gain` is the lower end, at one-sided `LEVEL`, of what the traffic gains on average, without the
    key that speaks most for it."""

    moves: tuple[MapChange, ...]
    gain: float

    @property
    def words(self) -> str:
        told = ", ".join(f"{move.candidate} takes over {move.category} from {move.live}" for move in self.moves)
        return f"{told}: at least {self.gain:+.3f} by what is known of both"


def fallen(changes: Sequence[ChangePoint]) -> frozenset[tuple[str, str]]:
    """Cells (category, expert) whose quality fell."""
    return frozenset((change.category, change.expert) for change in changes if change.after < change.before)


def fallen_rows(live: Mapping[str, str], changes: Sequence[ChangePoint]) -> list[int]:
    """Rows of the live map (category -> expert) whose expert fell there."""
    return [row for row, cell in enumerate(live.items()) if cell in fallen(changes)]


def weighty_keys(log: LogTable, moves: Sequence[MapChange]) -> IntArray:
    """Keys whose share of the evidence is bounded and that gave at least `LEAST_SHARE` of the answers of the moved
    categories."""
    numbers = [number for number, name in enumerate(log.categories) if name in {move.category for move in moves}]
    moved = np.isin(log.category, numbers)
    keys, counts = np.unique(log.key[moved & (log.key >= 0)], return_counts=True)
    return np.asarray(keys[counts >= LEAST_SHARE * moved.sum()])


def find_takeover(
    moves: Sequence[MapChange],
    changes: Sequence[ChangePoint],
    found: Iterable[Evidence],
    categories: Sequence[str],
    n_decided: int,
) -> Takeover | None:
    """Gain by the moves of a map of which `n_decided` rows, the `fallen_rows`, are decided by newer evidence. None if a
    move does not leave an expert that fell somewhere, or if no gain is shown by one of the evidences: all of it, and
    that without each of the `weighty_keys`.

    Args:
        categories: rows of the evidence.
    """
    fell = {expert for _, expert in fallen(changes)}
    if not moves or any(move.live not in fell for move in moves):
        return None
    gains = []
    for evidence in found:
        gains.append(least_gain(moves, evidence, categories, n_decided))
        if gains[-1] <= 0:
            return None
    return Takeover(tuple(moves), min(gains))


def least_gain(moves: Sequence[MapChange], evidence: Evidence, categories: Sequence[str], n_decided: int) -> float:
    """What the traffic gains at least; 0 with fewer than MIN_SIDE answers of those that fell since then.

    The differences of both qualities, weighted by the traffic, less the normal quantile of their posterior errors. The
    same evidence chose the map, one of m^r for m experts and r rows that were decided, so the level is divided by their
    number. A cell's error takes the expert's mean, to which it is shrunk, as known; that mean's error is added,
    by at most the weight that it has in the cell.
    """
    matrix, names = evidence.matrix, evidence.outcomes.experts
    gain = variance = answers = 0.0
    exposed, borrowed = np.zeros(len(names)), 1.0 - matrix.count * matrix.stderr**2 / MOST_VARIANCE
    for move in moves:
        row, old, new = categories.index(move.category), names.index(move.live), names.index(move.candidate)
        share = float(matrix.mass[row] / matrix.mass.sum())
        gain += share * float(matrix.quality[row, new] - matrix.quality[row, old])
        variance += share**2 * float(matrix.stderr[row, new] ** 2 + matrix.stderr[row, old] ** 2)
        exposed[[old, new]] += share * np.maximum(borrowed[row, [old, new]], 0.0)
        answers += float(matrix.count[row, old])
    measured = matrix.count > 0
    of_mean = np.divide(MOST_VARIANCE, matrix.count, out=np.zeros(measured.shape), where=measured).sum(axis=0)
    variance += float((exposed**2 * of_mean / np.maximum(measured.sum(axis=0), 1) ** 2).sum())
    choices = float(len(names)) ** max(n_decided, len(moves))
    return gain + float(ndtri(LEVEL / choices)) * math.sqrt(variance) if answers >= MIN_SIDE else 0.0
