from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.regex import Options
from tests.router.answers.grading import grader

DATE = Options(pattern=r"\A\d{4}-\d{2}-\d{2}\Z")


def test_anchored_pattern_compares_the_stripped_answer() -> None:
    grade = grader(DATE)
    assert (grade(" 2024-05-01\n"), grade("on 2024-05-01"), grade("2024-5-1")) == (1.0, 0.0, 0.0)


def test_flags() -> None:
    grade = grader(Options(pattern=r"^dear ana", flags=("IGNORECASE", "MULTILINE")))
    assert grade("Subject\nDear Ana,") == 1.0
    assert grader(Options(pattern=r"^dear ana"))("Subject\nDear Ana,") == 0.0


@pytest.mark.parametrize("pattern", ["(", "a*", ""])
def test_options_refuse_broken_patterns_and_those_that_match_nothing_at_all(pattern: str) -> None:
    with pytest.raises(ValidationError):
        Options(pattern=pattern)


def test_unknown_flag_is_refused() -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"pattern": "a", "flags": ["LOCALE"]})


def test_a_huge_answer_is_wrong_rather_than_cut() -> None:
    assert grader(Options(pattern="a"))("a" * 10_000_000) == 0.0


@given(st.text())
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(DATE)(answer) in (0.0, 1.0)
