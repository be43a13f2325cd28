"""Contract of graders, run on every example of every kind."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from base.errors import ConfigError
from router import plugins

FAMILY = "eval.graders"
CASES = [
    pytest.param(kind, number, id=f"{kind}-{number}")
    for kind in plugins.kinds(FAMILY)
    for number in range(len(plugins.load(FAMILY, kind).EXAMPLES))
]
QUICK = [case for case in CASES if case.values[0] != "python_tests"]  # a subprocess per answer


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_options_survive_a_round_trip_and_refuse_what_they_do_not_know(kind: str, number: int) -> None:
    options = plugins.load(FAMILY, kind).EXAMPLES[number]
    values = options.model_dump(mode="json")
    assert plugins.validate_options(FAMILY, kind, values) == options
    with pytest.raises(ConfigError, match="no_such_option"):
        plugins.validate_options(FAMILY, kind, values | {"no_such_option": 1})


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
