"""routes.test.yaml: what it may hold, what is said about what it may not, and when a case holds."""

from __future__ import annotations

import pytest

from coe.base.errors import ConfigError
from coe.router.expectations import check_expectations, load_expectations, parse_expectations
from coe.router.types import RoutingDecision
from tests.logged import decision_of

EXPERTS = ("calculator", "generalist")
CATEGORIES = ("arithmetic", "writing", "general")


def parse(*cases: dict[str, object], **top: object):
    return parse_expectations({"cases": list(cases), **top}, EXPERTS, CATEGORIES)


def problems_of(*cases: dict[str, object], **top: object) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(*cases, **top)
    return caught.value.problems


def case(**values: object) -> dict[str, object]:
    return {"name": "sum", "text": "add seven numbers", **values}


def decide(text: str) -> RoutingDecision:
    """Texts that begin with a small "add" go to the calculator; the longer, the less sure."""
    return decision_of(
        "calculator" if text.startswith("add") else "generalist",
        "arithmetic" if text.startswith("add") else "general",
        confidence=max(0.0, 1 - len(text) / 100),
        is_fallback=not text.startswith("add"),
        likely_category="arithmetic",
        uncertainty=0.25,
    )


def failures(*cases: dict[str, object]) -> list[str]:
    """Places of the expectations that do not hold."""
    return [line.split(": ")[1] for line in check_expectations(parse(*cases), decide, file="routes.test.yaml")]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (case(expert="calculater"), "cases.0.expert: unknown expert 'calculater'; did you mean 'calculator'? allowed: "
         "calculator, generalist"),
        (case(not_expert="x"), "cases.0.not_expert: unknown expert 'x'; allowed: calculator, generalist"),
        (case(category="maths"), "cases.0.category: unknown category 'maths'; allowed: arithmetic, general, writing"),
        (case(same_as="sum"), "cases.0.same_as: unknown case 'sum'; allowed: none"),
        (case(expert="calculator", experts="x"), "cases.0.experts: unknown key; did you mean 'expert'? allowed: "
         "category, expert, fallback, min_confidence, name, not_expert, same_as, text"),
        (case(min_confidence=1.5), "cases.0.min_confidence: must be at most 1 (got 1.5)"),
        (case(fallback="perhaps"), "cases.0.fallback: must be true or false (got "
         "'perhaps')"),
        ({"name": "sum", "expert": "calculator"}, "cases.0.text: required key is missing"),
        (case(), "cases.0: 'sum' expects nothing; allowed: expert, not_expert, category, fallback, min_confidence, "
         "same_as"),
        (case(expert="calculator", not_expert="calculator"), "cases.0.not_expert: 'calculator' is also the expected "
         "expert"),
        (case(category="writing", fallback=True), "cases.0.category: 'writing' cannot be with fallback: true; allowed: "
         "general"),
        (case(category="general", fallback=False), "cases.0.category: 'general' cannot be with fallback: false; "
         "allowed: any other category"),
    ],
)  # fmt: skip
def test_a_fault_names_file_key_path_value_and_what_is_allowed(values, problem):
    assert problems_of(values) == (f"routes.test.yaml: {problem}",)


def test_a_blank_text_and_an_unknown_key_at_the_top_are_told_together():
    found = problems_of(case(expert="calculator") | {"text": " "}, versions=1)
    assert [line.split(": ")[1] for line in found] == ["cases.0.text", "versions"]
    assert "allowed: cases, version" in found[1]


def test_names_stand_once():
    found = problems_of(case(expert="calculator"), case(expert="calculator"))
    assert found == ("routes.test.yaml: cases.1.name: 'sum' is taken by cases.0",)


def test_other_shapes_are_refused():
    with pytest.raises(ConfigError, match=r"the top level must be a mapping, got a list$"):
        parse_expectations([], EXPERTS, CATEGORIES)
    assert problems_of(version=2)[0].startswith("routes.test.yaml: version: must be at most 1")
    assert problems_of() == ("routes.test.yaml: cases: is empty; expected at least one case",)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    file = tmp_path / "routes.test.yaml"
    for content, message in (
        (None, "cannot be read"),
        (b"\xff", "is not UTF-8 text \\(byte 0\\)"),
        (b"cases: [", "is not valid YAML"),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError, match=message):
            load_expectations(file, EXPERTS, CATEGORIES)
    file.write_text("cases:\n  - {name: a, text: add 2, expert: calculator}\n")
    assert load_expectations(file, EXPERTS, CATEGORIES).cases[0].expert == "calculator"


def test_what_is_left_out_is_not_looked_at():
    assert failures(case(expert="calculator", category="arithmetic", fallback=False, min_confidence=0.8)) == []
    assert failures(case(not_expert="generalist")) == []


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"expert": "generalist"}, "expert"),
        ({"not_expert": "calculator"}, "not_expert"),
        ({"category": "writing"}, "category"),
        ({"fallback": True}, "fallback"),
        ({"min_confidence": 0.9}, "min_confidence"),
    ],
)
def test_every_expectation_can_fail(values, key):
    assert failures(case(**values)) == [f"cases.0.{key}"]


def test_same_as_compares_experts():
    other = {"name": "poem", "text": "write a poem", "same_as": "sum"}
    assert failures(case(expert="calculator"), other) == ["cases.1.same_as"]
    assert failures(case(expert="calculator"), other | {"text": "add eight numbers"}) == []


def test_a_failure_says_all_in_one_line():
    found = check_expectations(parse(case(category="writing")), decide, file="routes.test.yaml")
    assert found == [
        "routes.test.yaml: cases.0.category: 'sum' expected category 'writing', got 'arithmetic'",
    ]
