"""Two small routers over a log whose numbers are known by hand; red asks go to ruby, green ones to emerald."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coe.router.map_solver import MapSolution
from coe.router.pipeline import Router
from coe.router.quality import QualityMatrix
from coe.router.solved_policy import SolvedPolicy
from coe.training.evidence import Evidence
from coe.training.feedback_bias import UNLIMITED
from coe.training.log_answers import AskedAnswers
from coe.training.log_table import LogTable
from coe.training.router_comparison import RouterComparison
from coe.training.types import OutcomeTable
from tests.gateway.small_router import EXPERTS, ColourEncoder, small_router
from tests.outcome_tables import scored_table

ROWS = ("red", "green", "general")


def mapping(**expert_of: str) -> Router:
    """A router that deviates from the live one in the categories named."""
    wanted = {"red": "ruby", "green": "emerald", "general": "plain"} | expert_of
    solution = MapSolution(np.array([EXPERTS.index(wanted[row]) for row in ROWS]), 0.0, {"cost_usd": 0.0}, ())
    return replace(small_router(version="b" * 16), policies={"default": SolvedPolicy(solution)})


def outcomes(texts: Sequence[str], scores: Sequence[Sequence[float]]) -> OutcomeTable:
    """Graded prompts, each of the category that its text names first."""
    values = np.array(scores, dtype=np.float32).reshape(len(texts), len(EXPERTS))
    return scored_table(values, [text.split()[0] for text in texts], EXPERTS, texts=tuple(texts))


def small_comparison(
    candidate: Router, *, quality: float = 0.5, costs: Sequence[float] = (0.0, 0.0, 0.0)
) -> RouterComparison:
    """The live small router against a candidate; the model of rewards is `quality` everywhere."""
    flat, row = np.full((3, 3), quality, np.float32), np.full(3, 1 / 3, np.float32)
    matrix = QualityMatrix(flat, flat, np.ones_like(flat), row, row, flat, flat)
    return RouterComparison(
        live=mapping(),
        candidate=candidate,
        evidence=Evidence(matrix, 0.0, outcomes((), ()), np.ones(0)),
        costs_usd=np.tile(np.array(costs, np.float32), (3, 1)),
        rng=np.random.default_rng(0),
    )


def log_table(
    category: Sequence[str], expert: Sequence[str], reward: Sequence[float], **changes: NDArray[np.generic]
) -> LogTable:
    """Held-out answers at seconds 0, 1, ..., each to a question of its own, chosen with probability 1/2, and
    rated by nobody whose share is limited."""
    n = len(category)
    columns: Mapping[str, object] = {
        "ids": np.array([f"d{i}" for i in range(n)], dtype=np.bytes_),
        "categories": ROWS,
        "experts": EXPERTS,
        "category": np.array([ROWS.index(name) for name in category], dtype=np.int32),
        "expert": np.array([EXPERTS.index(name) for name in expert], dtype=np.int32),
        "reward": np.array(reward, dtype=np.float64),
        "propensity": np.full(n, 0.5),
        "weight": np.ones(n),
        "at": np.arange(n, dtype=np.float64),
        "question": np.arange(n, dtype=np.int64),
        "key": np.full(n, UNLIMITED, dtype=np.int64),
        "is_held_out": np.ones(n, dtype=bool),
        "is_failure": np.zeros(n, dtype=bool),
    }
    return LogTable(**{**columns, **changes})


def asked(log: LogTable, *, excluded: Sequence[str] = ()) -> AskedAnswers:
    """Queries that were asked: the name of the category, with the same experts ruled out each time."""
    texts = tuple(log.categories[number] for number in log.category)
    left = tuple(name for name in EXPERTS if name not in excluded)
    return AskedAnswers(
        log=log,
        texts=texts,
        embeddings=ColourEncoder().encode(texts).astype(np.float16),
        policies=("default",) * len(log),
        excluded=(tuple(excluded),) * len(log),
        chances=({name: 0.5 for name in left},) * len(log),
    )
