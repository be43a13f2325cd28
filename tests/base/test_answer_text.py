from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.answer_text import clip, fenced_blocks, first_line, names_term, normal_form


@pytest.mark.parametrize(
    ("text", "normal"),
    [(" «L'été.» ", "l'été"), ("A  b\n C!", "a b c"), ("3.14.", "3.14"), ("...", "..."[:0]), ("-5", "-5")],
)
def test_normal_form(text: str, normal: str) -> None:
    assert normal_form(text) == normal


@given(st.text())
def test_normal_form_is_stable(text: str) -> None:
    once = normal_form(text)
    assert normal_form(once) == normal_form(normal_form(once))


def test_first_line_skips_blank_lines() -> None:
    assert first_line("\n  \n one \ntwo") == "one"
    assert first_line(" \n") == ""


def test_fenced_blocks_in_order_the_last_may_be_cut_off() -> None:
    assert fenced_blocks("```py\na\n```\ntext\n```\nb") == ("a\n", "b")
    assert fenced_blocks("no block `x`") == ()


def test_names_term() -> None:
    assert names_term("Straße", "STRASSE")
    assert not names_term("", "a")


def test_clip() -> None:
    assert len(clip("x" * 10**6)) == 10_000
