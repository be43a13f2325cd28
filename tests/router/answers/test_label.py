from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.label import Options
from tests.router.answers.grading import grader

SENTIMENT = Options(label="negative", labels=("positive", "negative", "neutral"))


@pytest.mark.parametrize(
    "answer", ["negative", "Negative.", "The sentiment is **NEGATIVE**", "negative: very negative"]
)
def test_names_the_right_label_only(answer: str) -> None:
    assert grader(SENTIMENT)(answer) == 1.0


@pytest.mark.parametrize(
    "answer", ["", "positive", "not positive but negative", "positive, negative, neutral", "negatively"]
)
def test_no_label_another_label_or_several_are_wrong(answer: str) -> None:
    assert grader(SENTIMENT)(answer) == 0.0


def test_the_longer_of_overlapping_labels_is_read() -> None:
    labels = ("spam", "not spam")
    assert grader(Options(label="not spam", labels=labels))("This is not spam") == 1.0
    assert grader(Options(label="spam", labels=labels))("This is not spam") == 0.0
    assert grader(Options(label="spam", labels=labels))("spam") == 1.0


def test_options_name_the_label_that_is_not_allowed() -> None:
    with pytest.raises(ValidationError, match="'bad' is not among labels good, poor"):
        Options(label="bad", labels=("good", "poor"))
    with pytest.raises(ValidationError, match="more than case"):
        Options(label="A", labels=("A", "a"))


def test_huge_answers() -> None:
    assert grader(SENTIMENT)("negative " * 1_000_000) == 1.0


@given(st.text())
def test_score_is_zero_or_one(answer: str) -> None:
    assert grader(SENTIMENT)(answer) in (0.0, 1.0)


@given(st.sampled_from(("positive", "neutral")), st.text(alphabet=" .,\n"))
def test_a_wrong_label_never_scores(label: str, around: str) -> None:
    assert grader(SENTIMENT)(around + label + around) == 0.0
