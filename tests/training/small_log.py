"""Logs and grades of three experts and three rows that are known by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from coe.training.feedback_bias import UNLIMITED
from coe.training.log_table import LogTable
from coe.training.types import OutcomeTable
from tests.gateway.small_router import EXPERTS
from tests.outcome_tables import scored_table

ROWS = ("red", "green", "general")


def outcomes(texts: Sequence[str], scores: Sequence[Sequence[float]]) -> OutcomeTable:
    """Graded prompts, each of the category that its text names first."""
    values = np.array(scores, dtype=np.float32).reshape(len(texts), len(EXPERTS))
    return scored_table(values, [text.split()[0] for text in texts], EXPERTS, texts=tuple(texts))


def log_table(
    category: Sequence[str], expert: Sequence[str], reward: Sequence[float], **changes: NDArray[np.generic]
) -> LogTable:
    """Answers at seconds 0, 1, ..., rated by nobody whose share is limited. Ruby is planned, and emerald, ahead by 0.1,
    answers half of what either does."""
    n = len(category)
    columns: Mapping[str, object] = {
        "categories": ROWS,
        "experts": EXPERTS,
        "category": np.array([ROWS.index(name) for name in category], dtype=np.int32),
        "expert": np.array([EXPERTS.index(name) for name in expert], dtype=np.int32),
        "reward": np.array(reward, dtype=np.float64),
        "weight": np.ones(n),
        "at": np.arange(n, dtype=np.float64),
        "key": np.full(n, UNLIMITED, dtype=np.int64),
        "is_failure": np.zeros(n, dtype=bool),
        "planned": np.full(n, EXPERTS.index("ruby"), dtype=np.int32),
        "challenger": np.full(n, EXPERTS.index("emerald"), dtype=np.int32),
        "planned_chance": np.full(n, 0.5),
        "challenger_chance": np.full(n, 0.5),
        "estimated_gain": np.full(n, 0.1),
    }
    return LogTable(**{**columns, **changes})
