"""Units of a test, in order: prompts, of which some are drawn to be graded, with a logged chance.

If a plan chooses as the reference does, its gain is 0 and needs no grade. Each other prompt is drawn with a chance that
is recorded before its grade is known, and counts for 1 / chance. So the expected mean gain is that of the traffic,
whichever prompts are drawn (Horvitz & Thompson 1952). Shapes: n units, m experts, c plans, k rows of the map.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from coe.eval.certify.ladder import Choices, Ladder
from coe.router.reading.normalise import normalised_text
from coe.router.strategies.learned import play_choices
from coe.router.types import Float64Array, IntArray, Record
from coe.training.types import NOT_COMPARED, OutcomeTable, unknown

MIN_CHANCE = 0.5
"""Smallest chance of a prompt that may be drawn: rarer draws weigh more, and large weights bar large stakes (ours)."""

MIN_SPREAD = 0.03
"""Smallest standard deviation assumed of a plan's gains (ours): few graded prompts may show none."""

PRIOR_GRADES = 10.0
"""Number of grades that the mean of all rows counts as in the spread of a row's gains (ours)."""


class Drawn(Record):
    """A prompt that was taken up, by its text. `least` is the least chance that any prompt of its batch had."""

    text: str
    chance: float = 1.0
    least: float = 1.0
    is_drawn: bool = True
    at: str = ""


@dataclass(frozen=True)
class Units:
    """The units of a test. `gains` (n, c) are in quality, none below -`worst_loss` (n,). `base` (n,) is the price of
    the reference, and `saved` (n, c) how much less each plan costs."""

    gains: Float64Array
    worst_loss: Float64Array
    saved: Float64Array
    base: Float64Array
    n_graded: int
    since: str
    fingerprint: str
    unit_names: tuple[str, str] = ("prompt", "prompts")


def text_key(text: str) -> str:
    """Return a name of 16 hex digits for what a prompt asks; case, spacing and punctuation do not change it."""
    return hashlib.sha256(normalised_text(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def draw_number(key: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends on a prompt's name alone."""
    return int.from_bytes(hashlib.sha256(b"drawn\0" + key.encode()).digest()[:8], "big") / 2**64


def grade_choices(table: OutcomeTable, choices: Choices, ladder: Ladder) -> tuple[Float64Array, Float64Array]:
    """Return the scores and the prices of the reference and each plan, of shape (n, 1 + c) each. Both are NaN if an
    expert that the plan asks was not graded. The columns of `table` are the router's experts."""
    m, columns = len(ladder.router.experts), list[tuple[Float64Array, Float64Array]]()
    price = ladder.price[choices.row, :m]
    if ladder.key == "cost_usd":
        price = np.where(np.isfinite(table.cost_usd), table.cost_usd, price).astype(np.float64)
    answers = np.full(table.scores.shape, NOT_COMPARED) if table.answers is None else table.answers
    is_single = (answers == NOT_COMPARED).all(axis=1)[:, None] & (choices.choice >= m)
    for choice in np.where(is_single, ladder.alone[choices.row], choices.choice).T:
        played = play_choices(answers, choice, ladder.ways)
        is_known = (np.isfinite(table.scores) | ~played.asked).all(axis=1)
        scores = np.where(is_known, played.scored(table.scores), np.nan)
        columns.append((scores, np.where(is_known, (played.asked * price).sum(axis=1), np.nan)))
    scores, spent = np.array(columns).transpose(1, 2, 0)
    return scores, spent


def easier_only(ladder: Ladder, table: OutcomeTable, choices: Choices, within: float) -> Ladder:
    """Drop the plans that cost more than another one and are no easier to show on graded prompts outside the test."""
    scores, _ = grade_choices(table, choices, ladder)
    gains = scores[:, 1:] - scores[:, :1]
    gains = gains[np.isfinite(gains).all(axis=1)]
    if not len(gains):
        return ladder
    ease, kept = (gains.mean(axis=0) + within) / np.maximum(gains.std(axis=0), MIN_SPREAD), list[int]()
    for plan in reversed(range(len(ease))):
        if not kept or ease[plan] > ease[kept].max():
            kept.insert(0, plan)
    return replace(ladder, names=tuple(ladder.names[i] for i in kept), floors=tuple(ladder.floors[i] for i in kept))


def in_columns(table: OutcomeTable, experts: tuple[str, ...]) -> OutcomeTable:
    """Return the table with these experts as columns; cells of experts that it lacks are unknown."""
    at = [table.experts.index(name) if name in table.experts else -1 for name in experts]
    n = len(table.texts)
    wider: dict[str, Any] = {
        name: np.hstack([cells, unknown(name, (n, 1))])[:, at] for name, cells in table.matrices.items()
    }
    return replace(table, experts=experts, **wider)


def units_of(drawn: Sequence[Drawn], table: OutcomeTable, at: IntArray, choices: Choices, ladder: Ladder) -> Units:
    """Return the units that were taken up, in order, up to the first whose grade is still missing.

    Args:
        at: row of each unit in the table of grades, -1 if it has none, of shape (n,).
        choices: the choices on the n prompts.
    """
    is_drawn, has_grade = np.array([each.is_drawn for each in drawn], dtype=bool), at >= 0
    scores, spent = np.full(choices.choice.shape, np.nan), np.full(choices.choice.shape, np.nan)
    part = Choices(choices.choice[has_grade], choices.row[has_grade])
    scores[has_grade], spent[has_grade] = grade_choices(table.rows(at[has_grade]), part, ladder)
    chance = np.array([each.chance for each in drawn])
    weight = np.where(is_drawn, 1.0 / np.maximum(chance, MIN_CHANCE), 0.0)[:, None]
    counts = choices.differs & is_drawn[:, None]
    gains = np.where(counts, weight * (scores[:, 1:] - scores[:, :1]), 0.0)
    gains[choices.differs & (chance == 0)[:, None]] = -1.0  # none differed then: the worst is assumed
    expected = ladder.price[choices.row, choices.choice[:, 0]]
    known = is_drawn & np.isfinite(spent).all(axis=1)
    base = expected + np.where(known, weight[:, 0] * (np.nan_to_num(spent[:, 0]) - expected), 0.0)
    saved = np.where(counts, weight * (spent[:, :1] - spent[:, 1:]), 0.0)
    pending = np.isnan(gains).any(axis=1)
    n = int(pending.argmax()) if pending.any() else len(drawn)
    digest = hashlib.sha256(repr([each.text for each in drawn[:n]]).encode() + gains[:n].tobytes())
    return Units(
        gains[:n],
        np.array([1.0 / each.least for each in drawn[:n]]),
        saved[:n],
        base[:n],
        n_graded=int((counts[:n].any(axis=1)).sum()),
        since=min((each.at for each in drawn), default=""),
        fingerprint=digest.hexdigest()[:16],
    )


def draw_chances(gains: Float64Array, before: Choices, new: Choices, plan: int) -> Float64Array:
    """Return the chance of each new prompt to be drawn, of shape (n,); 0 if no plan differs from the reference. It is
    proportional to the spread of a plan's known gains in the prompt's row, which narrows the bound most.

    Args:
        gains: gains so far, on the first prompts of `before`, of shape (u, c).
        plan: the first plan that is not shown.
    """
    asked, row = before.differs[: len(gains), plan], before.row[: len(gains)]
    k = int(max(row.max(initial=0), new.row.max(initial=0))) + 1
    squares = np.bincount(row, weights=gains[:, plan] ** 2 * asked, minlength=k)
    counts = np.bincount(row, weights=asked, minlength=k)
    mean = squares.sum() / max(float(counts.sum()), 1.0)
    spread = np.sqrt((squares + PRIOR_GRADES * mean) / (counts + PRIOR_GRADES))[new.row] * new.differs[:, plan]
    share = spread / spread.max() if spread.max(initial=0.0) > 0 else np.ones(len(spread))
    return np.where(new.differs.any(axis=1), np.clip(share, MIN_CHANCE, 1.0), 0.0)
