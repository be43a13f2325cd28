"""`json_fields`: the share of expected fields that the JSON object in the answer gets right."""

from __future__ import annotations

import math

from pydantic import Field, JsonValue

from base.answer_text import clip, normal_form, object_in
from eval.graders import Grader
from router.types import Record


class Options(Record):
    """`expected`: fields and values. `exact_keys`: fields beyond the expected lower the score. `strict_types`: `"3"` is
    not `3`; otherwise scalars are compared by their text, ignoring case and surrounding punctuation."""

    expected: dict[str, JsonValue] = Field(min_length=1)
    exact_keys: bool = False
    strict_types: bool = False


def _scalar_text(value: str | int | float | bool | None) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str):
        return normal_form(value)
    return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)


def _is_same(given: JsonValue, expected: JsonValue, *, strict: bool) -> bool:
    """Structural equality; true and 1 differ, 3 and 3.0 do not."""
    if isinstance(given, dict) and isinstance(expected, dict):
        return given.keys() == expected.keys() and all(
            _is_same(given[key], expected[key], strict=strict) for key in expected
        )
    if isinstance(given, list) and isinstance(expected, list):
        pairs = zip(given, expected, strict=False)
        return len(given) == len(expected) and all(_is_same(one, other, strict=strict) for one, other in pairs)
    if isinstance(given, dict | list) or isinstance(expected, dict | list):
        return False
    if strict:
        return isinstance(given, bool) == isinstance(expected, bool) and given == expected
    return _scalar_text(given) == _scalar_text(expected)


def build(options: Options) -> Grader:
    """A grader that gives right fields / expected fields; with `exact_keys` the surplus fields join the denominator.
    Field names are compared as written. No object in the answer gives 0."""
    expected = options.expected

    def grade(answer: str) -> float:
        found = object_in(clip(answer))
        if found is None:
            return 0.0
        right = sum(
            key in found and _is_same(found[key], value, strict=options.strict_types) for key, value in expected.items()
        )
        fields = len(found.keys() | expected.keys()) if options.exact_keys else len(expected)
        return right / fields

    return grade


EXAMPLES: tuple[Options, ...] = (
    Options(expected={"name": "Ana", "age": 31}),
    Options(expected={"city": "Lima", "tags": ["a", "b"], "open": True}, exact_keys=True, strict_types=True),
)
