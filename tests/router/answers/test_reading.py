from __future__ import annotations

from coe.router.answers import clip, fenced_blocks, first_line
from coe.router.answers.includes import names_term


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
