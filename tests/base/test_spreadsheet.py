"""Cells that a spreadsheet would evaluate."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from coe.base.visible_text import without_formula

STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@given(st.one_of(st.text(), st.builds("".join, st.lists(st.sampled_from(["'", *STARTS, "a"])))))
@example('=HYPERLINK("http://evil.example","x")')
@example("'=1")
@example("-1.5")
def test_no_cell_of_text_begins_a_formula(text: str) -> None:
    cell = without_formula(text)
    assert isinstance(cell, str)
    assert not cell.startswith(STARTS)
    assert cell.removeprefix("'") == text or cell == text


def test_numbers_stay_numbers() -> None:
    assert [without_formula(value) for value in (-1.5, -3, None)] == [-1.5, -3, None]
