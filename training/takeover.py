"""Categories that change hands without waiting for the gate, because the next best takes over from an expert that fell.

The gate judges by answers from after a change, whoever gave them, and so waits until the other expert was tried often
enough since then. But the next best did not change, so what was known of it holds, and that the other fell shows in the
many answers of its own. Who serves a category in which nobody was graded is a guess, and follows the newest evidence in
every round: there is nothing to be defended against a candidate. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router.quality import QualityMatrix
from router.types import IntArray
from training.candidate_verdict import MapChange
from training.change_points import MIN_SIDE, ChangePoint
from training.evidence import Evidence
from training.gate import LEVEL
from training.log_table import LogTable

LEAST_SHARE = 0.01
"""Share of the answers of the moved categories from which on a key is left out in turn (ours)."""

DRAWS = 10_000


@dataclass(frozen=True)
class Takeover:
    """Moves of a map. `gain` is what the traffic gains on average beyond luck, without the key that speaks most for
    it."""

    moves: tuple[MapChange, ...]
    gain: float

    @property
    def words(self) -> str:
        return f"{moved(self.moves)}: {self.gain:+.3f} or more"


def moved(moves: Iterable[MapChange]) -> str:
    """Moves in words."""
    return ", ".join(f"{move.candidate} takes over {move.category} from {move.live}" for move in moves)


def fallen(changes: Sequence[ChangePoint]) -> frozenset[tuple[str, str]]:
    """Cells (category, expert) whose quality fell."""
    return frozenset((change.category, change.expert) for change in changes if change.after < change.before)


@dataclass(frozen=True)
class Opening:
    """Rows of the map that may be decided anew without the gate, in which every move has to leave an expert that `fell`
    somewhere."""

    rows: tuple[int, ...]
    fell: frozenset[str]


def opening_of(live: Mapping[str, str], changes: Sequence[ChangePoint]) -> Opening:
    """Rows of the live map (category -> expert) whose expert fell there."""
    fell = fallen(changes)
    return Opening(tuple(row for row, cell in enumerate(live.items()) if cell in fell), frozenset(e for _, e in fell))


def without_guesses(
    moves: Iterable[MapChange], live: Mapping[str, str], matrix: QualityMatrix
) -> tuple[MapChange, ...]:
    """Moves but those of categories (rows of the live map) where nobody was graded: they follow the newest evidence."""
    guessed = {category for category, is_guess in zip(live, matrix.is_guess, strict=True) if is_guess}
    return tuple(move for move in moves if move.category not in guessed)


def weighty_keys(log: LogTable, moves: Sequence[MapChange]) -> IntArray:
    """Keys whose share of the evidence is bounded and that gave at least `LEAST_SHARE` of the answers of the moved
    categories."""
    numbers = [number for number, name in enumerate(log.categories) if name in {move.category for move in moves}]
    moved = np.isin(log.category, numbers)
    keys, counts = np.unique(log.key[moved & (log.key >= 0)], return_counts=True)
    return np.asarray(keys[counts >= LEAST_SHARE * moved.sum()])


def find_takeover(
    moves: Sequence[MapChange], live: Mapping[str, str], opening: Opening, found: Iterable[Evidence]
) -> Takeover | None:
    """Gain beyond luck by the moves of a map whose opened rows follow newer evidence. None if a move is not open, or if
    no gain is shown by one of the evidences: all of it, and that without each of the `weighty_keys`.

    Args:
        live: who serves each row of the evidence (category -> expert).
    """
    if not moves or not all(move.live in opening.fell for move in moves):
        return None
    gains = []
    for evidence in found:
        gains.append(gain_beyond_luck(moves, evidence, live, opening))
        if gains[-1] <= 0:
            return None
    return Takeover(tuple(moves), min(gains))


def known_gain(moves: Sequence[MapChange], evidence: Evidence, live: Mapping[str, str]) -> float:
    """Gain of the traffic by the differences of both qualities; 0 where somebody in a move is not among the evidence's
    experts."""
    matrix, names, rows = evidence.matrix, evidence.outcomes.experts, list(live)
    if not {name for move in moves for name in (move.live, move.candidate)} <= set(names):
        return 0.0
    at = [(rows.index(move.category), names.index(move.live), names.index(move.candidate)) for move in moves]
    gains = [matrix.mass[row] * (matrix.quality[row, new] - matrix.quality[row, old]) for row, old, new in at]
    return float(sum(gains) / matrix.mass.sum())


def gain_beyond_luck(
    moves: Sequence[MapChange], evidence: Evidence, live: Mapping[str, str], opening: Opening
) -> float:
    """Gain of the traffic beyond luck; 0 with fewer than MIN_SIDE answers of those that are left, or where somebody who
    serves an opened row, or is in a move, is not among the evidence's experts.

    The differences of both qualities, weighted by the traffic, less the gain that the best map over the opened and the
    moved rows shows by the errors of the evidence alone in all but `LEVEL` of draws, where nobody is better than who
    serves: the evidence that tests the moves has also chosen them. Luck is drawn for those that were measured in a
    category, and for who takes it over.
    """
    matrix, names = evidence.matrix, evidence.outcomes.experts
    share = np.asarray(matrix.mass / matrix.mass.sum(), dtype=np.float64)
    categories, is_drawn = list(live), matrix.count > 0
    if not {live[categories[row]] for row in opening.rows} <= set(names):
        return 0.0
    gain, answers = known_gain(moves, evidence, live), 0.0
    rows = sorted({*opening.rows, *(categories.index(move.category) for move in moves)})
    for move in moves if gain > 0 else ():
        row = categories.index(move.category)
        answers += float(matrix.count[row, names.index(move.live)])
        is_drawn[row, names.index(move.candidate)] = True
    if answers < MIN_SIDE:
        return 0.0
    serving = [names.index(live[categories[row]]) for row in rows]
    rng = np.random.default_rng(0)
    luck = matrix.stderr[rows] * rng.standard_normal((DRAWS, len(rows), len(names)))
    lead = np.where(is_drawn[rows], luck, -np.inf).max(axis=2) - luck[:, np.arange(len(rows)), serving]
    return gain - float(np.quantile(lead @ share[rows], 1.0 - LEVEL))
