"""Contract of graders, run on every example of every kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router import plugins
from tests.contracts.examples import cases_of

FAMILY = "eval.graders"
CASES = cases_of(FAMILY)
QUICK = [case for case in CASES if case.values[0] != "python_tests"]  # a subprocess per answer


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_an_empty_answer_and_a_refusal_earn_nothing(kind: str, number: int) -> None:
    grade = plugins.load(FAMILY, kind).build(plugins.load(FAMILY, kind).EXAMPLES[number])
    assert grade("") == 0.0
    assert grade("I am sorry, I cannot help with that.") < 1.0


@pytest.mark.parametrize(("kind", "number"), QUICK)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.text(max_size=300))
def test_any_text_gets_a_score_between_0_and_1_and_the_same_one_twice(kind: str, number: int, answer: str) -> None:
    grade = plugins.load(FAMILY, kind).build(plugins.load(FAMILY, kind).EXAMPLES[number])
    score = grade(answer)
    assert 0.0 <= score <= 1.0
    assert grade(answer) == score
