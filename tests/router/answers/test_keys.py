"""Answers that are the same, and answers that are not, by kind."""

from __future__ import annotations

import pytest

from coe.router import plugins
from coe.router.answers import FAMILY, AnswerKind, answer_kind
from coe.router.answers.sql import query_in, tables_in
from coe.router.loop import LoopState
from coe.router.section import PluginConfig
from coe.router.types import QueryFacts

QUESTION = (
    "Write add(a, b), e.g. add(2, 3) gives 5 and add('x', 'y') gives 'xy'. Also, on users(id, name, age) with "
    "orders(id, user_id, total): who is older than 5?"
)
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
    (
        "code",
        {},
        ["def add(a, b): return a + b", "Sure:\n```python\nimport operator\nadd = operator.add\n```\nadd(2, 3) is 5."],
    ),
    (
        "code",
        {},
        [
            "def add(a, b): return (True, {3, 1}, {'b': 1, 'a': 2})",
            "add = lambda a, b: (1.0, {1, 3}, {'a': 2, 'b': 1})",
        ],
    ),
    (
        "sql",
        {},
        [
            "SELECT name FROM users WHERE age > 5",
            "```sql\nselect u.name\nfrom users u where not u.age <= 5 order by age;\n```",
            "Use `SELECT name AS who FROM users WHERE 5 < age`.",
        ],
    ),
    (
        "sql",
        {},
        [
            "SELECT name FROM users WHERE id IN (SELECT user_id FROM orders)",
            "SELECT u.id_name FROM (SELECT id, name AS id_name FROM users) u JOIN orders o ON o.user_id = u.id"
            " GROUP BY u.id",
        ],
    ),
    ("json", {}, ['{"a": 1, "b": [2, 3]}', 'Here:\n```json\n{"b": [2.0, 3], "a": 1}\n```']),
]
DIFFERENT = [
    ("option", {}, ["A", "B"]),
    ("number", {}, ["5", "-5"]),
    ("number", {}, ["0.333", "1/3"]),
    ("label", {"labels": ["spam", "not spam"]}, ["spam", "not spam"]),
    ("text", {}, ["Paris", "London"]),
    ("json", {}, ['{"a": [1, 2]}', '{"a": [2, 1]}']),
    ("code", {}, ["def add(a, b): return a + b", "def add(a, b): return [a + b]", "def add(a, b): return b + a"]),
    (
        "sql",
        {},
        ["SELECT name FROM users WHERE age > 5", "SELECT name FROM users WHERE age > 6", "SELECT name FROM users"],
    ),
]
NONE = [
    ("option", {}, "I cannot say."),
    ("option", {"last": "D"}, "The answer is E"),
    ("number", {}, "None of these."),
    ("label", {"labels": ["spam", "not spam"]}, "spam or not spam"),
    ("text", {}, "word " * 13),
    ("json", {}, "[1, 2]"),
    ("code", {}, "I cannot."),
    ("code", {}, "def plus(a, b): return a + b"),
    ("code", {}, "def add(a, b): return object()"),
    ("code", {}, "import os\nos._exit(0)"),
    ("sql", {}, "SELECT nickname FROM users"),
    ("sql", {}, "SELECT name FROM users WHERE age > 1000"),
    ("sql", {}, "DROP TABLE users"),
    ("sql", {}, "I cannot."),
]


@pytest.mark.parametrize(("kind", "options", "answers"), SAME)
def test_spellings_of_one_answer_have_one_key(kind: str, options: dict[str, object], answers: list[str]) -> None:
    key = plugins.build(FAMILY, kind, options).key_for(QUESTION)
    assert None not in map(key, answers)
    assert len({key(answer) for answer in answers}) == 1


@pytest.mark.parametrize(("kind", "options", "answers"), DIFFERENT)
def test_other_answers_have_other_keys(kind: str, options: dict[str, object], answers: list[str]) -> None:
    key = plugins.build(FAMILY, kind, options).key_for(QUESTION)
    assert len({key(answer) for answer in answers}) == len(answers)


@pytest.mark.parametrize(("kind", "options", "answer"), NONE)
def test_what_states_nothing_of_the_kind_has_no_key(kind: str, options: dict[str, object], answer: str) -> None:
    assert plugins.build(FAMILY, kind, options).key_for(QUESTION)(answer) is None


@pytest.mark.parametrize("kind", ["code", "sql"])
def test_a_request_that_shows_nothing_to_compare_by_is_declined(kind: str) -> None:
    assert plugins.build(FAMILY, kind, {}).key_for("write add(a), which sums up") is None


def test_the_kind_follows_from_the_request_and_the_category() -> None:
    declared = {"math": PluginConfig.model_validate({"kind": "label", "labels": ["yes", "no"]})}

    def key(facts: QueryFacts, answer: str) -> str | None:
        kind = answer_kind(facts, "math", declared)
        assert isinstance(kind, AnswerKind)
        keys = kind.key_for(QUESTION)
        assert keys is not None
        return keys(answer)

    assert key(QueryFacts(), "Yes, indeed") == "yes"
    assert key(QueryFacts(wants_json=True), '{"a": 1}') == '{"a": 1}'
    assert answer_kind(QueryFacts(), "other", declared) == "no kind of answers is declared for category 'other'"
    assert key(QueryFacts(loop=LoopState(), wants_json=True), '{"a": 1}') == '{"a": 1}'


def test_hostile_texts_are_read_in_linear_time() -> None:
    """What takes a tenth of a second here took minutes."""
    for text in (f"t(a A{' ' * 300_000}\0, b)", f"t({',' * 300_000})", "a()" * 100_000):
        assert tables_in(text) == {}
    assert tables_in("users(id, name VARCHAR(20, 1)), CREATE TABLE t (a)") == {
        "users": [("id", ""), ("name", "VARCHAR")],
        "t": [("a", "")],
    }
    for text in ("\n" * 300_000, "\n \n" * 100_000, f"`{'a ' * 150_000}"):
        assert query_in(text) == text
    assert query_in("  \n\n  SELECT 1;\n") == "SELECT 1"
