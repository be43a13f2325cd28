"""Answers that are the same, and answers that are not, by kind."""

from __future__ import annotations

import pytest

from router import plugins
from router.section import PluginConfig
from router.strategies.kind_of import FAMILY, answer_kind
from router.types import QueryFacts

SAME = [
    (
        "option",
        {},
        ["B", "(B)", "B. Because it is so.", "The answer is (B).", "So, **Answer: B**", "it is $\\boxed{B}$"],
    ),
    ("option", {}, ["A. no\nThe answer is D", "D"]),
    (
        "number",
        {},
        ["1234.5", "1,234.50", "$1\u00a0234,5", "The answer is 1234.5 km.", "1.000 + 234.5 = 1234.5", "2469/2"],
    ),
    ("number", {}, ["0.75", "3/4", "so \\boxed{\\frac{3}{4}}", "The answer is 3/4 because 6/8 is 3/4"]),
    ("number", {}, ["42", "The answer is 42, because 6 times 7 is that, not 41", "6 x 7 = 42"]),
    ("number", {"digits": 3}, ["1/3", "0.333", "0.3333333"]),
    ("label", {"labels": ["spam", "not spam"]}, ["Not spam.", "I say: not spam"]),
    ("text", {}, ["Paris", "paris.", "The answer is Paris!", "  **PARIS** "]),
    ("text", {}, ["the Eiffel Tower", "Eiffel tower"]),
    ("json", {}, ['{"a": 1, "b": [2, 3]}', 'Here:\n```json\n{"b": [2.0, 3], "a": 1}\n```']),
]
DIFFERENT = [
    ("option", {}, ["A", "B"]),
    ("number", {}, ["5", "-5"]),
    ("number", {}, ["0.333", "1/3"]),
    ("label", {"labels": ["spam", "not spam"]}, ["spam", "not spam"]),
    ("text", {}, ["Paris", "London"]),
    ("json", {}, ['{"a": [1, 2]}', '{"a": [2, 1]}']),
]
NONE = [
    ("option", {}, "I cannot say."),
    ("option", {"last": "D"}, "The answer is E"),
    ("number", {}, "None of these."),
    ("label", {"labels": ["spam", "not spam"]}, "spam or not spam"),
    ("text", {}, "word " * 13),
    ("json", {}, "[1, 2]"),
]


@pytest.mark.parametrize(("kind", "options", "answers"), SAME)
def test_spellings_of_one_answer_have_one_key(kind: str, options: dict[str, object], answers: list[str]) -> None:
    key = plugins.build(FAMILY, kind, options)
    assert None not in map(key, answers)
    assert len({key(answer) for answer in answers}) == 1


@pytest.mark.parametrize(("kind", "options", "answers"), DIFFERENT)
def test_other_answers_have_other_keys(kind: str, options: dict[str, object], answers: list[str]) -> None:
    key = plugins.build(FAMILY, kind, options)
    assert len({key(answer) for answer in answers}) == len(answers)


@pytest.mark.parametrize(("kind", "options", "answer"), NONE)
def test_what_states_nothing_of_the_kind_has_no_key(kind: str, options: dict[str, object], answer: str) -> None:
    assert plugins.build(FAMILY, kind, options)(answer) is None


def test_the_kind_follows_from_the_request_and_the_category() -> None:
    declared = {"math": PluginConfig.model_validate({"kind": "label", "labels": ["yes", "no"]})}
    by_category = answer_kind(QueryFacts(), "math", declared)
    assert by_category is not None
    assert by_category("Yes, indeed") == "yes"
    as_json = answer_kind(QueryFacts(wants_json=True), "math", declared)
    assert as_json is not None
    assert as_json('{"a": 1}') == '{"a": 1}'
    assert answer_kind(QueryFacts(), "other", declared) is None
    assert answer_kind(QueryFacts(has_tools=True), "math", declared) is None
    assert answer_kind(QueryFacts(in_tool_loop=True, wants_json=True), "math", declared) is None
