"""Answers with a known truth: four experts, of whom two err alike."""

from __future__ import annotations

import numpy as np

from coe.training.strategies.rehearsal import Known
from coe.training.strategies.vote_fit import Ballots

ACCURACY = 0.6
OPTIONS = 5


def ballots(n: int, seed: int = 0, twins: bool = True) -> Ballots:
    """Experts 0 to 3 are right at ACCURACY, each on its own but for 1, which repeats 0; a tenth gives no answer."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(OPTIONS, size=n)
    wrong = (truth[:, None] + rng.integers(1, OPTIONS, size=(n, 4))) % OPTIONS
    given = np.where(rng.random((n, 4)) < ACCURACY, truth[:, None], wrong)
    if twins:
        given[:, 1] = given[:, 0]
    given[rng.random((n, 4)) < 0.1] = -1
    scores = (given == truth[:, None]).astype(np.float64)
    embeddings = rng.normal(size=(n, 3))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Ballots(numbered(given), scores, embeddings.astype(np.float32))


def numbered(given: np.ndarray) -> np.ndarray:
    """Answers numbered from 0 in each row, as an outcome table has them."""
    found = np.full(given.shape, -1, dtype=np.int64)
    for row, answers in enumerate(given.tolist()):
        order = list(dict.fromkeys(a for a in answers if a >= 0))
        found[row] = [order.index(a) if a >= 0 else -1 for a in answers]
    return found


def known(n: int, seed: int = 0) -> Known:
    made = ballots(n, seed)
    weights = np.random.default_rng(seed + 1).normal(size=(n, 5))
    return Known(made.keys, made.scores, weights)
