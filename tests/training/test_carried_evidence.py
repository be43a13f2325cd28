"""Evidence of the live map on experts without grades: whose rows it is, and what newer ratings make of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from coe.router.quality import QualityMatrix
from coe.training.change_points import ChangePoint
from coe.training.evidence import Carried, carried_over, with_carried

ROWS = ("facts", "sql", "general")
EXPERTS = ("left", "right", "tutor")
SINCE = datetime(2026, 1, 2, tzinfo=UTC)


def matrix(*columns: tuple[float, ...], count: float = 10.0) -> QualityMatrix:
    """One column of qualities for each expert; all else tells its place."""
    quality = np.array(columns, np.float32).T
    place = np.arange(quality.size, dtype=np.float32).reshape(quality.shape)
    row = np.arange(len(quality), dtype=np.float32)
    return QualityMatrix(quality, place / 100, np.full_like(quality, count), row, row, place, 2 * place)


LIVE = matrix((0.4, 0.2, 0.3), (0.6, 0.6, 0.5), (0.9, 0.5, 0.7))


def carried_from(learned: tuple[str, ...], graded: tuple[str, ...], known: tuple[str, ...] = EXPERTS) -> Carried | None:
    """Evidence of the live router that is carried into an experts.yaml with these categories and `known` experts."""
    manifest = SimpleNamespace(experts=EXPERTS, categories=ROWS[:-1], created_at=SINCE.isoformat())
    live: Any = SimpleNamespace(manifest=manifest, part=lambda name: {"map": LIVE}[name].arrays())
    config: Any = SimpleNamespace(experts=dict.fromkeys(known), learned_categories=learned)
    return carried_over(config, live, graded)


def test_what_is_known_is_carried_in_the_rows_of_the_file() -> None:
    """A category that the live router does not know has what is known of `general`, and no answer of its own."""
    found = carried_from(("sql", "poems", "facts"), ("right", "left", "newest"))
    assert (found.experts, found.others) == (("tutor",), ("right", "left"))
    assert (found.rows, found.since) == (("sql", "poems", "facts", "general"), SINCE.timestamp())
    assert found.columns.quality[:, 0] == pytest.approx([0.5, 0.7, 0.9, 0.7])
    assert found.columns.count[:, 0].tolist() == [10.0, 0.0, 10.0, 10.0]
    assert found.columns.latency_ms[:, 0].tolist() == [10.0, 16.0, 4.0, 16.0]
    assert found.lead[:, 0] == pytest.approx([0.5 - 0.4, 0.7 - 0.4, 0.9 - 0.5, 0.7 - 0.4])


def test_where_nobody_is_graded_still_the_quality_itself_is_carried() -> None:
    found = carried_from(ROWS[:-1], ("newest",))
    assert (found.experts, found.others) == (EXPERTS, ())
    assert found.lead == pytest.approx(LIVE.quality)


@pytest.mark.parametrize("known", [("left", "right"), ("left", "right", "newest")])
def test_nothing_is_carried_of_experts_that_are_graded_or_gone(known: tuple[str, ...]) -> None:
    assert carried_from(ROWS[:-1], ("left", "right"), known) is None


NOW = matrix((0.3, 0.3, 0.3), (0.7, 0.5, 0.7), (0.0, 0.0, 0.0), count=4.0)
SUMS, COUNTS = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [5.0], [3.0]])


def filled(changes: tuple[ChangePoint, ...] = (), **fields: Any) -> QualityMatrix:
    """The matrix with `tutor` filled, who has a lead of 0.3 and 10, 10 and 0 answers from before."""
    columns = replace(matrix((0.9, 0.5, 0.7)), count=np.array([[10], [10], [0]], np.float32))
    columns = replace(columns, stderr=np.full((3, 1), 0.1, np.float32))
    carried = Carried(("tutor",), columns, np.full((3, 1), 0.3), ("left", "right"), ROWS, SINCE.timestamp())
    return with_carried(NOW, EXPERTS, replace(carried, **fields), SUMS, COUNTS, changes)


def test_a_lead_is_kept_above_the_others_as_they_are_now_and_newer_ratings_join_it() -> None:
    """The others' means are 0.5, 0.4 and 0.5. In the last row nothing was known but the lead, which weighs one answer
    and has an error of 0.5."""
    found = filled()
    assert found.quality[:, 2] == pytest.approx([0.8, (10 * 0.7 + 1) / 15, (0.8 + 2) / 4])
    assert found.stderr[:, 2] == pytest.approx([0.1, 0.1 * (10 / 15) ** 0.5, 0.5 * (1 / 4) ** 0.5])
    assert found.count[:, 2].tolist() == [10, 15, 3]
    assert (found.output_tokens[:, 2].tolist(), found.latency_ms[:, 2].tolist()) == ([0, 1, 2], [0, 2, 4])
    for name in ("quality", "stderr", "count", "output_tokens", "latency_ms"):
        assert getattr(found, name)[:, :2].tolist() == getattr(NOW, name)[:, :2].tolist(), name
    assert NOW.count[:, 2].tolist() == [4, 4, 4], "the matrix that was given is as it was"
    assert filled(lead=np.full((3, 1), 0.9)).quality[0, 2] == 1.0
    assert filled(others=()).quality[0, 2] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("category", "expert", "after_s", "is_new"),
    [
        ("sql", "tutor", 1.0, True),
        ("sql", "tutor", 0.0, False),  # the live router knows of it
        ("sql", "left", 1.0, False),
        ("poems", "tutor", 1.0, False),
    ],
)
def test_nothing_is_left_of_what_changed_since(category: str, expert: str, after_s: float, is_new: bool) -> None:
    found = filled((ChangePoint(category, expert, SINCE.timestamp() + after_s, 0.9, 0.2),))
    expected = filled()
    if is_new:
        expected.quality[1, 2], expected.stderr[1, 2], expected.count[1, 2] = (0.7 + 1) / 6, 0.5 * (1 / 6) ** 0.5, 5
    for name, array in found.arrays().items():
        assert array == pytest.approx(expected.arrays()[name]), name
