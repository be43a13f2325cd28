from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.number import Options
from tests.router.answers.grading import grader


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("42", 42),
        ("12 + 30 = 42", 42),
        ("12 + 30 = **42**. There are 2 digits.", 42),
        ("The sum of 12 and 30 is 42.", 42),
        ("= 42", 42),
        ("1 + 1 = 2, so x = ?", 2),
        ("1,234", 1234),
        ("1,234,567.5", 1234567.5),
        ("1.234.567", 1234567),
        ("1.234,50 €", 1234.5),
        ("1\u202f234,5", 1234.5),
        ("1'234", 1234),
        ("3,5", 3.5),
        ("$12.50", 12.5),
        ("-$5", -5),
        ("€ 7", 7),
        ("-5", -5),
        ("−5", -5),
        ("it is +8", 8),
        ("25%", 25),
        ("1e3", 1000),
        ("7 - 10 = -3", -3),
        ("10-3", 3),
        ("about 12.", 12),
        ("0.5", 0.5),
        ("100cm", 100),
        ("x=\\(6\\)", 6),
    ],
)
def test_reads_numbers_as_people_write_them(answer: str, value: float) -> None:
    assert grader(Options(value=value))(answer) == 1.0


@pytest.mark.parametrize("answer", ["", "forty-two", "42 is not right, 43 is", "4 2", "-42", "4.2", "NaN", "inf", "="])
def test_wrong_or_missing_numbers(answer: str) -> None:
    assert grader(Options(value=42))(answer) == 0.0


def test_take_decides_between_several() -> None:
    answer = "42 (because 40 and 2 make it)"
    assert grader(Options(value=42))(answer) == 0.0
    assert grader(Options(value=42, take="first"))(answer) == 1.0


def test_tolerance_is_absolute() -> None:
    grade = grader(Options(value=3.94, tolerance=0.05))
    assert (grade("3.9"), grade("3.99"), grade("4.0")) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("answer", ["9" * 1_000_000, "1," * 500_000, "=" * 1_000_000, "1e" + "9" * 9_000])
def test_huge_answers_are_wrong_and_fast(answer: str) -> None:
    assert grader(Options(value=42))(answer) == 0.0


def test_options_refuse_what_no_answer_can_be() -> None:
    with pytest.raises(ValidationError):
        Options(value=float("nan"))
    with pytest.raises(ValidationError):
        Options(value=1, tolerance=-1)


@given(st.text(alphabet=st.characters() | st.sampled_from("0123456789.,-=e$ ")))
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(Options(value=1))(answer) in (0.0, 1.0)


@given(st.integers(-(10**12), 10**12))
def test_reads_back_integers_plain_and_grouped(value: int) -> None:
    grade = grader(Options(value=value))
    assert grade(f"It is {value}.") == 1.0
    assert grade(f"{value:,}") == 1.0
