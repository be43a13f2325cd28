from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.text import Options
from tests.router.answers.grading import grader


@pytest.mark.parametrize("answer", ["Paris", "  paris. ", '"PARIS"', "**Paris**!", "«paris»", "(Paris)"])
def test_case_space_quotes_and_closing_punctuation_do_not_count(answer: str) -> None:
    assert grader(Options(accepted=("Paris",)))(answer) == 1.0


@pytest.mark.parametrize("answer", ["", "Pari s", "Paris, France", "It is Paris", "Páris", "Paris\nLyon"])
def test_other_texts_are_wrong(answer: str) -> None:
    assert grader(Options(accepted=("Paris",)))(answer) == 0.0


def test_first_line_ignores_what_follows() -> None:
    grade = grader(Options(accepted=("gato",), first_line=True))
    assert grade("\n Gato.\nThat means cat.") == 1.0
    assert grade("The word is\ngato") == 0.0


def test_any_accepted_text_will_do() -> None:
    grade = grader(Options(accepted=("car", "auto")))
    assert (grade("auto"), grade("car"), grade("bus")) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("accepted", [("",), (" . ",)])
def test_options_refuse_what_every_empty_answer_would_match(accepted: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Options(accepted=accepted)


@given(st.text())
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(Options(accepted=("a", "b")))(answer) in (0.0, 1.0)


@given(st.text(min_size=1).filter(lambda text: any(c.isalnum() for c in text)))
def test_the_accepted_text_itself_is_right(text: str) -> None:
    assert grader(Options(accepted=(text,)))(text) == 1.0
