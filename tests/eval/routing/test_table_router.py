"""A router fitted for an outcome table, whose labels are as uneven as real ones are."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coe.base.errors import ConfigError, DataError
from coe.cli.progress import silent
from coe.eval.routing.table_fit import TableRequest, fit_table, table_inputs
from coe.training.types import MIN_TABLE_PROMPTS, OutcomeTable
from tests.outcome_tables import scored_table


def uneven(counts: dict[str, int]) -> OutcomeTable:
    categories = tuple(name for name, count in counts.items() for _ in range(count))
    texts = tuple(f"{c} words of {c} kind {i}" for i, c in enumerate(categories))
    scores = [[float(c == "a"), 0.5] for c in categories]
    return scored_table(scores, categories, ("one", "two"), texts=texts)


def test_a_category_too_small_to_fold_counts_as_general(tmp_path: Path) -> None:
    table = uneven({"a": 12, "b": MIN_TABLE_PROMPTS, "rare": MIN_TABLE_PROMPTS - 1, "once": 1})
    now = datetime(2026, 1, 2, tzinfo=UTC)
    artifact = fit_table(tmp_path / "r", TableRequest(table, "hashing"), now=now, progress=silent)
    assert artifact.manifest.categories == ("a", "b")
    assert artifact.arrays["map.count"].tolist() == [[12, 12], [5, 5], [5, 5]]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"a": 12, "rare": 1}, ("a",)),
        ({"rare": MIN_TABLE_PROMPTS - 1, "once": 1}, ("all",)),
        ({"general": 9, "all": 1}, ("all",)),
    ],
)
def test_one_category_can_be_learned_and_where_there_is_none_all_prompts_are_one(
    tmp_path: Path, counts: dict[str, int], expected: tuple[str, ...]
) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    table = uneven(counts)
    artifact = fit_table(tmp_path / "r", TableRequest(table, "hashing"), now=now, progress=silent)
    assert artifact.manifest.categories == expected


def test_a_table_smaller_than_one_category_is_refused(tmp_path: Path) -> None:
    none = uneven({"rare": 1, "once": 3})
    with pytest.raises(DataError, match="has 4 prompts to fit a router on; expected 5 or more"):
        fit_table(tmp_path / "r", TableRequest(none, "hashing"), now=datetime(2026, 1, 2, tzinfo=UTC), progress=silent)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scorer": "oracle"}, "unknown kind 'oracle' of router.scorers"),
        ({"classifier": "no"}, "of router.classifiers"),
    ],
)
def test_a_kind_that_there_is_not_is_told_before_anything_is_encoded(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        table_inputs(TableRequest(uneven({"a": 12}), "hashing", **wrong))


def test_the_mass_of_a_category_is_what_is_served_as_it(tmp_path: Path) -> None:
    """With labels that say nothing about texts, stage 1 is never sure, and all of a budget is spent on `general`."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    sure = uneven({"a": 60, "b": 20})
    artifact = fit_table(tmp_path / "r", TableRequest(sure, "hashing"), now=now, progress=silent)
    assert artifact.arrays["map.mass"] == pytest.approx([60 / 81, 20 / 81, 1 / 81], abs=1e-6)
    unsure = replace(sure, texts=tuple(f"words of any kind {i}" for i in range(80)))
    artifact = fit_table(tmp_path / "r", TableRequest(unsure, "hashing"), now=now, progress=silent)
    assert artifact.arrays["map.mass"] == pytest.approx([1 / 82, 1 / 82, 80 / 82], abs=1e-6)
