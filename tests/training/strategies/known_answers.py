"""Answers with a known truth: four experts, of whom two err alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table

CATEGORIES = ("a", "b")
EXPERTS = ("one", "twin", "two", "three")
ACCURACY, OPTIONS = 0.6, 5


def known_table(n: int, seed: int = 0, columns: Sequence[int] = range(4)) -> OutcomeTable:
    """Experts 0 to 3 are right at ACCURACY, each on its own but for 1, which repeats 0; a tenth gives no answer."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(OPTIONS, size=n)
    wrong = (truth[:, None] + rng.integers(1, OPTIONS, size=(n, 4))) % OPTIONS
    given = np.where(rng.random((n, 4)) < ACCURACY, truth[:, None], wrong)
    given[:, 1] = given[:, 0]
    given[rng.random((n, 4)) < 0.1] = -1
    own, categories = list(columns), [CATEGORIES[i % 2] for i in range(n)]
    scores = (given == truth[:, None]).astype(np.float64)[:, own]
    return scored_table(scores, categories, tuple(EXPERTS[e] for e in own), answers=numbered(given[:, own]))


def numbered(given: np.ndarray) -> np.ndarray:
    """Answers numbered from 0 in each row, as an outcome table has them."""
    found = np.full(given.shape, -1, dtype=np.int64)
    for row, answers in enumerate(given.tolist()):
        order = list(dict.fromkeys(a for a in answers if a >= 0))
        found[row] = [order.index(a) if a >= 0 else -1 for a in answers]
    return found
