"""Calls of tools: which are the same, as chat completions and public records write them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from coe.router.answers import KeyOf, calls_of
from coe.router.answers.call import NO_CALL, Options
from tests.router.answers.grading import grader

NESTED = {"type": "object", "properties": {"at": {"type": "array", "items": {"type": "number"}}}}
SEARCH = {
    "name": "web.search",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}, "safe": {"type": "boolean"}},
    },
}
TOOLS = [
    {"type": "function", "function": SEARCH},
    {"type": "function", "function": {"name": "draw", "parameters": {"properties": {"shape": NESTED}}}},
]


@pytest.fixture
def key() -> KeyOf:
    return calls_of(TOOLS)


def completion(name: str, arguments: str, call_id: str = "call_1") -> str:
    return f'{{"id": "{call_id}", "type": "function", "function": {{"name": "{name}", "arguments": {arguments}}}}}'


SEARCHED = r'"{\"query\": \"New York, NY\", \"limit\": 3}"'


@pytest.mark.parametrize(
    "same",
    [
        [
            f"[{completion('web.search', SEARCHED)}]",
            f"[{completion('web_search', SEARCHED, 'toolu_2')}]",
            '{"tool_calls": [{"name": "web_search", "arguments": {"limit": "3", "query": "new york NY"}}]}',
            '[{"web_search": "{\\"query\\": \\"New York NY\\", \\"limit\\": 3.0}"}]',
            '<function_call> {"name": "web_search", "arguments": {"query": "New York, NY", "limit": 3}}',
            "[web.search(query='New York, NY', limit=3)]",
            "web.search('New York, NY', 3);",
        ],
        ["[draw(shape={'at': [1, 2.0]})]", '[{"name": "draw", "arguments": {"shape": {"at": ["1", 2]}}}]'],
        [
            '[{"name": "draw", "arguments": {}}, {"name": "web.search", "arguments": {"safe": "True"}}]',
            "[web_search(safe=True), draw()]",
        ],
        ["I cannot do that.", "[]", "None", "Use 3 tools {of mine}"],
    ],
)
def test_spellings_of_the_same_calls_have_one_key(key: KeyOf, same: Sequence[str]) -> None:
    assert len({key(answer) for answer in same}) == 1, {answer: key(answer) for answer in same}


@pytest.mark.parametrize(
    "others",
    [
        ["[draw()]", "[draw(), draw()]", NO_CALL],
        ["[web.search(query='a', limit=3)]", "[web.search(query='a', limit=-3)]", "[web.search(query='a')]"],
        ["[draw(shape={'at': [1, 2]})]", "[draw(shape={'at': [2, 1]})]", "[draw(shape={'at': ['x', 1]})]"],
        ["[web.search(query='3')]", "[web.search(limit='3')]", '[{"name": "elsewhere", "arguments": {"limit": 3}}]'],
    ],
)
def test_other_calls_have_other_keys(key: KeyOf, others: Sequence[str]) -> None:
    keys = [key(answer) for answer in others]
    assert None not in keys
    assert len(set(keys)) == len(keys), keys


@pytest.mark.parametrize(
    "broken", ["", "  ", '[{"name": "draw", "arguments": "{"}]', '[{"name": "draw", "arguments": 3}]']
)
def test_a_broken_call_and_nothing_at_all_have_no_key(key: KeyOf, broken: str) -> None:
    assert key(broken) is None


def test_no_part_of_a_long_call_is_compared(key: KeyOf) -> None:
    long = f'[{{"name": "draw", "arguments": {{"shape": "{"x" * 200_000}"}}}}]'
    assert key(long) is None


@pytest.mark.parametrize("tools", [None, [3], [{}], [{"function": 3}], [{"name": "draw", "parameters": [1]}]])
def test_tools_that_are_not_well_formed_compare_by_the_values_own_types(tools: object) -> None:
    key = calls_of(tools)
    assert key('[{"name": "draw", "arguments": {"x": 1}}]') == key('[{"name": "draw", "arguments": {"x": 1.0}}]')


def test_a_call_is_right_that_is_one_of_those() -> None:
    grade = grader(Options(tools=(SEARCH,), right=("[web.search(limit=3)]", NO_CALL)))
    assert grade('[{"name": "web_search", "arguments": {"limit": "3"}}]') == grade("Nothing fits.") == 1.0
    assert grade("[web.search(limit=4)]") == 0.0
