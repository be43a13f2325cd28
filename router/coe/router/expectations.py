"""Expectations of the router in `routes.test.yaml`, which CI checks. Pure but for reading the file and `decide`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from coe.base.errors import ConfigError, allowed_values
from coe.base.yaml_text import read_yaml
from coe.router.config.composition import checked_values, config_text
from coe.router.types import GENERAL, Record, RoutingDecision

EXPECTED = ("expert", "not_expert", "category", "fallback", "min_confidence", "same_as")

Text = Annotated[str, StringConstraints(pattern=r"\S")]


class Expectation(Record):
    """One case: a text and what must be true of its decision. What is left out is not looked at."""

    name: str = Field(min_length=1, description="for messages and `same_as`; each once")
    text: Text
    expert: str | None = None
    not_expert: str | None = None
    category: str | None = None
    fallback: bool | None = Field(default=None, description="whether the router must be unsure and send it to general")
    min_confidence: float | None = Field(default=None, ge=0, le=1)
    same_as: str | None = Field(default=None, description="another case, whose expert this one must get")


class Expectations(Record):
    """The whole file."""

    version: int = Field(default=1, ge=1, le=1)
    cases: tuple[Expectation, ...]


def load_expectations(path: Path, experts: Collection[str], categories: Collection[str]) -> Expectations:
    """Read and parse one file. It raises ConfigError if the file is missing, is not YAML, or `parse_expectations`
    refuses it."""
    return parse_expectations(read_yaml(config_text(path), file=str(path)), experts, categories, file=str(path))


def parse_expectations(
    values: object, experts: Collection[str], categories: Collection[str], *, file: str = "routes.test.yaml"
) -> Expectations:
    """Parse expectations from plain values, with every name resolved.

    Args:
        experts: names that `expert` and `not_expert` may have.
        categories: names that `category` may have.

    Raises:
        ConfigError: one problem per fault, each naming file, key path, value and allowed values.
    """
    parsed = checked_values(Expectations, values, file)
    problems = [f"{file}: {line}" for line in unresolved(parsed, experts, categories)]
    if problems:
        raise ConfigError("\n".join(problems), problems)
    return parsed


def unresolved(parsed: Expectations, experts: Collection[str], categories: Collection[str]) -> list[str]:
    """Return names that do not resolve, names used twice, and cases that expect nothing or the impossible."""
    names = [case.name for case in parsed.cases]
    problems = [] if names else ["cases: is empty; expected at least one case"]
    for i, case in enumerate(parsed.cases):
        others = [name for j, name in enumerate(names) if j != i]
        known = {"expert": experts, "not_expert": experts, "category": categories, "same_as": others}
        if case.name in names[:i]:
            problems.append(f"cases.{i}.name: '{case.name}' is taken by cases.{names.index(case.name)}")
        for key, allowed in known.items():
            value = getattr(case, key)
            if value is not None and value not in allowed:
                problems.append(f"cases.{i}.{key}: unknown {noun(key)} '{value}'{allowed_values(value, allowed)}")
        problems.extend(f"cases.{i}{line}" for line in impossible(case))
    return problems


def noun(key: str) -> str:
    return {"not_expert": "expert", "same_as": "case"}.get(key, key)


def impossible(case: Expectation) -> list[str]:
    problems = []
    if all(getattr(case, key) is None for key in EXPECTED):
        problems.append(f": '{case.name}' expects nothing; allowed: {', '.join(EXPECTED)}")
    if case.expert is not None and case.expert == case.not_expert:
        problems.append(f".not_expert: '{case.not_expert}' is also the expected expert")
    if case.fallback and case.category not in (None, GENERAL):
        problems.append(f".category: '{case.category}' cannot be with fallback: true; allowed: {GENERAL}")
    if case.fallback is False and case.category == GENERAL:
        problems.append(f".category: '{GENERAL}' cannot be with fallback: false; allowed: any other category")
    return problems


def check_expectations(expectations: Expectations, decide: Callable[[str], RoutingDecision], *, file: str) -> list[str]:
    """Decide every case, and return a line for each expectation that does not hold."""
    decided = {case.name: decide(case.text) for case in expectations.cases}
    expert_of = {name: decision.expert for name, decision in decided.items()}
    return [
        f"{file}: cases.{i}.{key}: '{case.name}' expected {expected}, got {found}"
        for i, case in enumerate(expectations.cases)
        for key, expected, found in broken(case, decided[case.name], expert_of)
    ]


def broken(
    case: Expectation, decision: RoutingDecision, expert_of: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield key, expected and found value of every expectation that a decision does not meet."""
    got = f"expert '{decision.expert}' by category '{decision.category}' (confidence {decision.confidence:.2f})"
    if case.expert is not None and decision.expert != case.expert:
        yield "expert", f"expert '{case.expert}'", got
    if case.not_expert is not None and decision.expert == case.not_expert:
        yield "not_expert", f"another expert than '{case.not_expert}'", got
    if case.category is not None and decision.category != case.category:
        likely = "" if decision.category == decision.likely_category else f", most likely '{decision.likely_category}'"
        yield "category", f"category '{case.category}'", f"'{decision.category}'{likely}"
    if case.fallback is not None and decision.is_fallback != case.fallback:
        wanted = "a fallback to general" if case.fallback else "no fallback"
        yield "fallback", wanted, f"category '{decision.category}' (uncertainty {decision.uncertainty:.2f})"
    if case.min_confidence is not None and decision.confidence < case.min_confidence:
        yield "min_confidence", f"confidence of at least {case.min_confidence:g}", f"{decision.confidence:.3f}"
    if case.same_as is not None and decision.expert != expert_of[case.same_as]:
        yield "same_as", f"the expert of '{case.same_as}', '{expert_of[case.same_as]}'", got
