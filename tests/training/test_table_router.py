"""A router fitted for an outcome table, whose labels are as uneven as real ones are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from router.errors import DataError
from training.datasets.outcomes import write_outcomes
from training.progress import silent
from training.table_fit import MIN_TABLE_PROMPTS, TableRequest, table_router
from training.types import OutcomeTable


def uneven(folder: Path, counts: dict[str, int]) -> Path:
    categories = tuple(name for name, count in counts.items() for _ in range(count))
    scores = np.array([[float(c == "a"), 0.5] for c in categories], dtype=np.float32)
    unknown = np.full_like(scores, np.nan)
    numbers = range(len(categories))
    table = OutcomeTable(
        prompt_ids=tuple(f"p{i}" for i in numbers),
        texts=tuple(f"{c} words of {c} kind {i}" for i, c in zip(numbers, categories, strict=True)),
        categories=categories,
        splits=("train",) * len(categories),
        experts=("one", "two"),
        scores=scores,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        metric="acc",
        source="uneven",
    )
    write_outcomes(table, folder)
    return folder


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_a_category_too_small_to_fold_counts_as_general(tmp_path: Path, classifier: str) -> None:
    folder = uneven(tmp_path / "t", {"a": 12, "b": MIN_TABLE_PROMPTS, "rare": MIN_TABLE_PROMPTS - 1, "once": 1})
    now = datetime(2026, 1, 2, tzinfo=UTC)
    artifact = table_router(tmp_path / "r", TableRequest(folder, "hashing", classifier), now=now, progress=silent)
    assert artifact.manifest.categories == ("a", "b")
    assert artifact.arrays["map.count"].tolist() == [[12, 12], [5, 5], [5, 5]]


@pytest.mark.parametrize("classifier", ["logistic", "knn"])
def test_one_category_can_be_learned_and_none_cannot(tmp_path: Path, classifier: str) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    folder = uneven(tmp_path / "t", {"a": 12, "rare": 1})
    artifact = table_router(tmp_path / "r", TableRequest(folder, "hashing", classifier), now=now, progress=silent)
    assert artifact.manifest.categories == ("a",)
    none = uneven(tmp_path / "u", {"rare": 1, "once": 2})
    with pytest.raises(DataError, match="at least one category"):
        table_router(tmp_path / "r", TableRequest(none, "hashing", classifier), now=now, progress=silent)
