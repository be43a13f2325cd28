"""Contract of the kinds of answers, run on every example of every kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import plugins
from router.strategies.types import FAMILY, AnswerKind, KeyOf, Question
from tests.contracts.examples import cases_of

CASES = cases_of(FAMILY)
PIECES = (
    'the answer is|The|B|(C)|A.|\\boxed{|}|=|3/4|1,234.5|-7|\\frac{1}{2}|%|positive|not spam|spam|{"a": 1.0}|{"a":|[1]|'
)
PIECES += "\n|is|:|answer|an|,|1e5"
ANSWERS = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES.split("|")), max_size=12).map(" ".join))


def keys_of(kind: str, number: int) -> KeyOf:
    """The keys of answers to a prompt that shows an example and a table, beside an encoder and a judge."""
    built: AnswerKind = plugins.load(FAMILY, kind).build(plugins.load(FAMILY, kind).EXAMPLES[number])
    encoder = plugins.build("router.encoders", "hashing", {"dim": 16})
    return built.key_for(Question("add(2, 3) == 5; users(id, name)", encoder.encode, lambda expert, body: "different"))


def of_text(kind: str) -> bool:
    return not plugins.load(FAMILY, kind).build(plugins.load(FAMILY, kind).EXAMPLES[0]).is_slow


@pytest.mark.parametrize(("kind", "number"), [case for case in CASES if of_text(str(case.values[0]))])
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
