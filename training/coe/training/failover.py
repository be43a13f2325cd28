"""Changes of the live router where its candidate is not promoted: categories that change hands without the gate.

The next best takes over from an expert that fell. The gate judges by answers from after a change, whoever gave them,
and so waits until the other expert was tried often enough since then. But the next best did not change, so what was
known of it holds, and that the other fell shows in the many answers of its own. Who serves a category in which nobody
was graded is a guess, and follows the newest evidence in every round: there is nothing to be defended against a
candidate. A new expert takes what its own answers show it to be better at.

Beside that, the live router explores by newer evidence than it decides by. A log can only judge an expert that was
tried, and tries are worth most where the newest evidence is in doubt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np

from coe.router.artifact import RouterArtifact, made_artifact
from coe.router.build import evidence_of
from coe.router.pipeline import Router
from coe.router.quality import QualityMatrix, reference_of
from coe.router.types import IntArray
from coe.training.change_points import MIN_SIDE, ChangePoint
from coe.training.evidence import Evidence
from coe.training.gate import LEVEL, Terms, shown
from coe.training.log_comparison import NewExperts
from coe.training.log_table import LogTable
from coe.training.router_comparison import MapChange, RouterComparison, map_changes

LEAST_SHARE = 0.01
"""Share of the answers of the moved categories from which on a key is left out in turn (ours)."""

DRAWS = 10_000
Made = TypeVar("Made")


def find_renewal(
    comparison: RouterComparison,
    new_experts: NewExperts | None,
    changes: Sequence[ChangePoint],
    terms: Terms,
    log: LogTable,
    with_rows: Callable[[Sequence[int]], tuple[Made, Router]],
    evidence_of: Callable[[LogTable], Evidence],
) -> tuple[Made | None, str]:
    """The live router with what the candidate knows, and in words what changes hands. None where its map, or much of
    its exploring, would not be as it should; no words where it only explores otherwise.

    Args:
        with_rows: makes the live router with these rows of its map decided anew.
        evidence_of: the evidence of another log.
    """
    live, evidence, before = comparison.live, comparison.evidence, comparison.live.expert_of()
    guessed = np.flatnonzero(evidence.matrix.is_guess).tolist()

    def decided(rows: Sequence[int]) -> tuple[Made, Router, tuple[MapChange, ...], tuple[MapChange, ...]]:
        """That router, its moves, and those of categories where somebody was graded."""
        made, router = with_rows([*rows, *guessed])
        moves = map_changes(live, router)
        return made, router, moves, without_guesses(moves, before, evidence.matrix)

    def pays(router: Router, gain: float) -> bool:
        return gain >= terms.least_gain(*mean_costs(live, router))

    still, router, moves, others = decided(())
    followed = ""
    if moves:
        gain = known_gain(moves, evidence, before)
        if not others and pays(router, gain):
            followed = f"{moved(moves)}, where no answer is graded: {gain:+.3f} by what is known"
        else:
            guessed = []
            still, router, moves, others = decided(())
    if new_experts is not None and new_experts.gain.is_evident:
        made, _, _, given = decided(rows_given(comparison.candidate, new_experts.experts))
        if given and all(move.candidate in new_experts.experts for move in given):
            return made, joined(f"{moved(given)}: {shown(new_experts.gain)}", followed)
    opening = opening_of(before, changes)
    if opening.rows:
        made, taking, _, taken = decided(opening.rows)
        without_keys = (evidence_of(log.rows(log.key != key)) for key in weighty_keys(log, taken))
        gain = find_takeover(taken, before, opening, chain([evidence], without_keys))
        if gain > 0 and pays(taking, gain):
            return made, joined(f"{moved(taken)}: {gain:+.3f} or more", followed)
    is_other = live.experts != router.experts or exploration_moved(live, router) > LEAST_MOVE
    is_exploring = any(policy.exploration is not None for policy in router.policies.values())
    return (still if (moves or (is_other and is_exploring)) and not others else None), followed


def mean_costs(live: Router, candidate: Router) -> tuple[float, float]:
    """Mean cost of a query under the default policies, USD."""
    now, then = (float(router.policy("default").solution.used["cost_usd"]) for router in (live, candidate))
    return now, then


def joined(*sentences: str) -> str:
    """Those that say something, as one."""
    return "; ".join(filter(None, sentences))


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
) -> float:
    """Gain of the traffic beyond luck by the moves of a map whose opened rows follow newer evidence: the least that is
    shown by all of the evidence, and by that without each of the `weighty_keys`. 0 where that is none, or if a move is
    not open.

    Args:
        live: who serves each row of the evidence (category -> expert).
    """
    if not moves or not all(move.live in opening.fell for move in moves):
        return 0.0
    least = math.inf
    for evidence in found:
        least = min(least, gain_beyond_luck(moves, evidence, live, opening))
        if least <= 0:
            return 0.0
    return least


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


BELOW_REFERENCE = 0.01
"""Amount by which a new expert's quality is taken to be below that of the expert that all are compared with, so that it
is mapped nowhere (ours)."""

RENEWED = ("quality", "stderr", "count")

LEAST_MOVE = 0.03
"""Share of the queries that a new version must explore differently to be made (ours): every rating moves some."""


def can_renew(live: RouterArtifact, categories: Sequence[str]) -> bool:
    """Returns whether the live router takes newer evidence as it is: it decides by a map over the same categories, in
    the same order."""
    return live.manifest.scorer.kind == "map" and live.manifest.categories == tuple(categories)


@dataclass(frozen=True)
class Renewed:
    """Knowledge of a live router of `experts`: the `matrix` it decides by, and the `newest` it explores by."""

    experts: tuple[str, ...]
    matrix: QualityMatrix
    newest: QualityMatrix


def renewed(
    known: QualityMatrix,
    experts: tuple[str, ...],
    evidence: Evidence,
    rows: Sequence[int] = (),
) -> Renewed:
    """Knowledge of a live router, `known` of `experts`, with the experts that are new to it as the last ones.

    Args:
        rows: of the map, which are decided anew by the evidence, against who serves them now.
    """
    graded = evidence.outcomes.experts
    names = tuple(name for name in graded if name not in experts)
    matrix = beside(known, evidence.matrix.columns([graded.index(name) for name in names])) if names else known
    experts = (*experts, *names)
    newest = replace(matrix, **{name: getattr(matrix, name).copy() for name in RENEWED})
    if evidence.matrix.is_guess.any():  # what is asked for now may not have been known when the live map was measured
        newest = replace(newest, mass=evidence.matrix.mass)
    decided = replace(matrix, **{name: getattr(matrix, name).copy() for name in RENEWED})
    for column, expert in enumerate(experts):
        for name in RENEWED if expert in graded else ():
            own = getattr(evidence.matrix, name)[:, graded.index(expert)]
            getattr(newest, name)[:, column] = own
            getattr(decided, name)[list(rows), column] = own[list(rows)]
    if rows and evidence.matrix.serving is not None:
        now = [-1 if number < 0 else experts.index(graded[int(number)]) for number in evidence.matrix.serving]
        serving = np.full(len(now), -1, dtype=np.float32) if known.serving is None else known.serving.copy()
        serving[list(rows)] = [now[row] for row in rows]
        decided = replace(decided, serving=serving)
    return Renewed(experts, replace(decided, guessed=evidence.matrix.guessed), newest)


def renew(live: RouterArtifact, evidence: Evidence, rows: Sequence[int] = ()) -> RouterArtifact:
    """The live router with what is `renewed`. It keeps the date of its map's measurement."""
    made = renewed(evidence_of(live), live.manifest.experts, evidence, rows)
    manifest = live.manifest.model_dump(exclude={"version", "weights_sha256"})
    manifest |= {"parents": (live.manifest.version,), "experts": made.experts}
    arrays = dict(live.arrays) | {f"map.{name}": array for name, array in made.matrix.arrays().items()}
    arrays |= {f"explored.{name}": getattr(made.newest, name) for name in ("quality", "stderr", "mass")}
    return made_artifact(manifest, arrays)


def rows_given(router: Router, experts: Sequence[str]) -> tuple[int, ...]:
    """Rows of the map of a router that these experts serve."""
    return tuple(row for row, name in enumerate(router.expert_of().values()) if name in experts)


def exploration_moved(one: Router, other: Router) -> float:
    """Largest mean share, over policies, of the queries that one of two routers of the same map would explore otherwise
    than the other; or of the queries of a category without grades."""
    moved = [0.0]
    for policy in one.policies:
        shares = [explored_shares(router, policy) for router in (one, other)]
        names = sorted({name for own in shares for row in own for name in row})
        tables = [np.array([[row.get(name, 0.0) for name in names] for row in own]) for own in shares]
        by_row = np.abs(tables[0] - tables[1]).sum(axis=1) / 2
        explores = other.policies[policy].exploration
        guessed = [] if explores is None else sorted(explores.guessed)
        moved += [float(by_row.mean()), *by_row[guessed].tolist()]
    return max(moved)


def explored_shares(router: Router, policy: str) -> list[dict[str, float]]:
    """Shares of the experts in each row of a map."""
    quality = router.scorer.measured.evidence.quality
    decisions = [router.cached_decision(policy, row, own, {}) for row, own in enumerate(quality)]
    return [dict(zip(found.usual.eligible, found.odds.probs, strict=True)) for found in decisions]


def beside(known: QualityMatrix, added: QualityMatrix) -> QualityMatrix:
    """Both matrices' columns, the added ones held below the reference, so that the map stays what it is; exploration
    still prefers a good one. Their counts are 0, so that none is the reference, or ahead because it is cheap."""
    ceiling = known.quality[:, [reference_of(known)]] - BELOW_REFERENCE
    held = replace(
        added,
        quality=np.clip(np.minimum(added.quality, ceiling), 0.0, 1.0).astype(np.float32),
        count=np.zeros_like(added.count),
    )
    return known.beside(held.arrays())
