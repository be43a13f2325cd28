from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.includes import Options
from tests.router.answers.grading import grader


def test_all_any_and_none_must_hold_together() -> None:
    grade = grader(Options(all_of=("Ana",), any_of=("hi", "hello"), none_of=("sorry",)))
    assert grade("Hello ANA!") == 1.0
    assert grade("Hello!") == 0.0
    assert grade("Ana.") == 0.0
    assert grade("Hi Ana, sorry") == 0.0


@pytest.mark.parametrize(("answer", "score"), [("catalog", 0.0), ("the cat.", 1.0), ("cat's", 1.0), ("bobcat", 0.0)])
def test_terms_are_whole_words(answer: str, score: float) -> None:
    assert grader(Options(all_of=("cat",)))(answer) == score


def test_a_star_matches_continuations_of_the_word_only() -> None:
    grade = grader(Options(any_of=("sav*",)))
    assert (grade("start saving now"), grade("save"), grade("unsaved")) == (1.0, 1.0, 0.0)


def test_terms_of_several_words_ignore_line_breaks() -> None:
    assert grader(Options(all_of=("new york",)))("in New\n York") == 1.0


def test_term_with_special_characters_is_literal() -> None:
    grade = grader(Options(all_of=("a.c",)))
    assert (grade("abc"), grade("a.c")) == (0.0, 1.0)


def test_word_limits() -> None:
    grade = grader(Options(all_of=("sun",), min_words=2, max_words=3))
    assert (grade("sun"), grade("the sun"), grade("the sun is out")) == (0.0, 1.0, 0.0)


def test_an_answer_too_long_to_read_is_over_any_word_limit() -> None:
    answer = "sun" + " " * 10_000_000 + "moon " * 10
    assert grader(Options(all_of=("sun",), max_words=1_000))(answer) == 0.0
    assert grader(Options(all_of=("sun",)))(answer) == 1.0


def test_options_refuse_conditions_that_say_nothing() -> None:
    with pytest.raises(ValidationError, match="all_of or any_of"):
        Options(none_of=("x",))
    with pytest.raises(ValidationError, match="below min_words"):
        Options(all_of=("x",), min_words=5, max_words=2)
    with pytest.raises(ValidationError):
        Options(all_of=("*",))


@given(st.text())
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(Options(any_of=("a", "the*"), max_words=3))(answer) in (0.0, 1.0)
