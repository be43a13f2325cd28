from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.router.answers.json import Options
from tests.router.answers.grading import grader

PERSON = Options(expected={"name": "Ana Ruiz", "age": 31})
RIGHT = '{"name": "Ana Ruiz", "age": 31}'


@pytest.mark.parametrize(
    "answer",
    [
        RIGHT,
        f"Here you are:\n```json\n{RIGHT}\n```\nAnything else?",
        f"```\n{RIGHT}",
        f"Use {{braces}}: {RIGHT}",
        '{"age": "31", "name": "ana ruiz."}',
        '{"age": 31.0, "name": "Ana Ruiz", "extra": null}',
    ],
)
def test_finds_the_object_and_compares_by_text(answer: str) -> None:
    assert grader(PERSON)(answer) == 1.0


@pytest.mark.parametrize(
    "answer", ["", "Ana Ruiz, 31", "[1, 2]", '{"name": "Ana Ruiz", "age": 31', "{}", '{"Name": "Ana Ruiz"}']
)
def test_no_object_or_no_field_gives_zero(answer: str) -> None:
    assert grader(PERSON)(answer) == 0.0


def test_the_score_is_the_share_of_right_fields() -> None:
    assert grader(PERSON)('{"name": "Ana Ruiz", "age": 30}') == 0.5
    assert grader(PERSON)('{"name": "Ana Ruiz"}') == 0.5


def test_exact_keys_counts_surplus_fields() -> None:
    grade = grader(Options(expected={"a": 1, "b": 2}, exact_keys=True))
    assert grade('{"a": 1, "b": 2}') == 1.0
    assert grade('{"a": 1, "b": 2, "c": 3, "d": 4}') == 0.5


def test_strict_types() -> None:
    grade = grader(Options(expected={"n": 3}, strict_types=True))
    assert (grade('{"n": 3}'), grade('{"n": 3.0}'), grade('{"n": "3"}')) == (1.0, 1.0, 0.0)
    flag = grader(Options(expected={"on": True}, strict_types=True))
    assert (flag('{"on": true}'), flag('{"on": 1}')) == (1.0, 0.0)


def test_booleans_and_null_by_text() -> None:
    grade = grader(Options(expected={"on": True, "off": None}))
    assert grade('{"on": true, "off": null}') == 1.0
    assert grade('{"on": "True", "off": "null"}') == 1.0
    assert grade('{"on": 1, "off": 0}') == 0.0


def test_nested_values_compare_whole() -> None:
    grade = grader(Options(expected={"tags": ["a", "b"], "at": {"city": "Lima"}}))
    assert grade('{"tags": ["A", "b"], "at": {"city": "lima"}}') == 1.0
    assert grade('{"tags": ["b", "a"], "at": {"city": "lima", "zip": 1}}') == 0.0
    assert grade('{"tags": "a, b", "at": "Lima"}') == 0.0


@pytest.mark.parametrize(
    "answer", ["{" * 1_000_000, '{"a":' * 200_000, "[" * 100_000 + RIGHT, '{"age": ' + "9" * 5_000 + "}"]
)
def test_hostile_nesting_and_numbers_score_zero(answer: str) -> None:
    assert grader(PERSON)(answer) == 0.0


@pytest.mark.parametrize("value", ["1e999", "NaN", "-Infinity"])
def test_numbers_that_are_not_finite(value: str) -> None:
    assert grader(PERSON)(f'{{"age": {value}}}') == 0.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text() | st.dictionaries(st.sampled_from(["name", "age", "x"]), JSON).map(json.dumps), st.booleans())
def test_score_is_in_range(answer: str, exact_keys: bool) -> None:
    options = Options(expected={"name": "a", "age": [1, None]}, exact_keys=exact_keys)
    assert 0.0 <= grader(options)(answer) <= 1.0
