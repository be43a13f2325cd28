"""Outcome tables for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from coe.training.types import OutcomeTable


def scored_table(scores: ArrayLike, categories: Sequence[str], experts: Sequence[str], **fields: Any) -> OutcomeTable:
    """A table of scores (n, m) of which nothing else is known, but for `fields`."""
    values = np.asarray(scores, np.float32)
    unknown, numbers = np.full_like(values, np.nan), range(len(values))
    table = OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in numbers),
        texts=tuple(f"question {i}" for i in numbers),
        categories=tuple(categories),
        splits=("train",) * len(values),
        experts=tuple(experts),
        scores=values,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        metric="probe",
        source="test",
    )
    return replace(table, **fields)
