"""Contract of the kinds of answers, run on every example of every kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coe.router import plugins
from coe.router.answers import FAMILY, AnswerKind, KeyOf, compares_none
from tests.contracts.examples import cases_of


def built(kind: str, number: int) -> AnswerKind:
    plugin = plugins.load(FAMILY, kind)
    made: AnswerKind = plugin.build(plugin.EXAMPLES[number])
    return made


CASES = [case for case in cases_of(FAMILY) if built(*case.values).key_for is not compares_none]
GRADED = [case for case in cases_of(FAMILY) if built(*case.values).score is not None]
PIECES = (
    'the answer is|The|B|(C)|A.|\\boxed{|}|=|3/4|1,234.5|-7|\\frac{1}{2}|%|positive|not spam|spam|{"a": 1.0}|{"a":|[1]|'
)
PIECES += "\n|is|:|answer|an|,|1e5"
ANSWERS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES.split("|")), max_size=12).map(" ".join))


def keys_of(kind: str, number: int) -> KeyOf:
    """The keys of answers to a prompt that shows an example and a table."""
    return built(kind, number).key_for("add(2, 3) == 5; users(id, name)")


@pytest.mark.parametrize(("kind", "number"), [case for case in CASES if not built(*case.values).is_slow])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS)
def test_a_key_is_an_answer_with_that_key(kind: str, number: int, answer: str) -> None:
    key = keys_of(kind, number)
    found = key(answer)
    assert found is None or key(found) == found


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_an_empty_answer_and_an_endless_one_have_no_key_or_take_no_time(kind: str, number: int) -> None:
    key = keys_of(kind, number)
    assert key("") is None
    for piece in ("1", "{", '{"a":', "answer ", "\\boxed{", "spam not ", "3/"):
        key(piece * 200_000)


@pytest.mark.parametrize(("kind", "number"), GRADED)
def test_an_empty_answer_and_a_refusal_earn_nothing(kind: str, number: int) -> None:
    grade = built(kind, number).score
    assert grade("") == 0.0
    assert grade("I am sorry, I cannot help with that.") < 1.0
    assert all(0.0 <= grade(answer) <= 1.0 for answer in ("x", "\x00", "42", "\ud800"))


@pytest.mark.parametrize(("kind", "number"), [case for case in GRADED if case.values[0] != "code"])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.text(max_size=300))
def test_any_text_gets_a_score_between_0_and_1_and_the_same_one_twice(kind: str, number: int, answer: str) -> None:
    grade = built(kind, number).score
    score = grade(answer)
    assert 0.0 <= score <= 1.0
    assert grade(answer) == score


def test_every_kind_compares_or_grades() -> None:
    assert {case.values[0] for case in (*CASES, *GRADED)} == set(plugins.kinds(FAMILY))
