from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coe.router.answers.chrf import Options
from tests.router.answers.grading import grader

# Values of sacreBLEU's CHRF(char_order=6, beta=2).sentence_score(answer, references) / 100.
SACREBLEU = [
    ("The cat sat on the mat.", ("The cat is on the mat.",), 0.671727),
    ("wo ist der Bahnhof", ("Wo ist der Bahnhof?", "Wo befindet sich der Bahnhof?"), 0.862379),
    ("el gato duerme en la casa grande", ("el gato duerme",), 0.770028),
    ("chat", ("chien",), 0.169979),
    ("guten tag", ("good day", "guten abend"), 0.327881),
]


@pytest.mark.parametrize(("answer", "references", "score"), SACREBLEU)
def test_equals_sacrebleu(answer: str, references: tuple[str, ...], score: float) -> None:
    assert grader(Options(references=references, lowercase=False))(answer) == pytest.approx(score, abs=1e-4)


def test_by_hand() -> None:
    # "abc" against "abd", orders 1 and 2: P = R = (2/3 + 1/2) / 2, and F of equal P and R is P.
    assert grader(Options(references=("abd",), max_n=2))("abc") == pytest.approx(7 / 12)


def test_recall_weighs_beta_squared_times_precision() -> None:
    # order 1: P = 2/4, R = 2/2, so F2 = 5 * 0.5 / (4 * 0.5 + 1)
    assert grader(Options(references=("ab",), max_n=1))("abcd") == pytest.approx(5 / 6)


def test_best_reference_counts() -> None:
    grade = grader(Options(references=("good morning", "bonjour")))
    assert grade("bonjour") == 1.0


def test_threshold_makes_it_one_or_zero() -> None:
    grade = grader(Options(references=("el gato duerme",), threshold=0.6))
    assert (grade("El gato duerme."), grade("the cat sleeps")) == (1.0, 0.0)


def test_case_and_white_space() -> None:
    assert grader(Options(references=("Hola amigo",)))("hola  AMIGO") == 1.0
    assert grader(Options(references=("Hola amigo",), lowercase=False))("HOLA AMIGO") < 0.2


@pytest.mark.parametrize("answer", ["", " ", "xyz"])
def test_nothing_shared_gives_zero(answer: str) -> None:
    assert grader(Options(references=("hello",)))(answer) == 0.0


def test_huge_answers_score_low() -> None:
    assert grader(Options(references=("hello there",)))("hello there " * 1_000_000) < 0.1


def test_options_refuse_blank_references() -> None:
    with pytest.raises(ValidationError):
        Options(references=(" ",))
    with pytest.raises(ValidationError):
        Options(references=())


@given(st.text(), st.text(min_size=1).filter(lambda text: text.strip() != ""))
def test_score_is_in_range_and_one_for_the_reference(answer: str, reference: str) -> None:
    grade = grader(Options(references=(reference,)))
    assert 0.0 <= grade(answer) <= 1.0
    assert grade(reference) == pytest.approx(1.0)
