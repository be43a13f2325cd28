"""`json`: the JSON object in the answer, up to the order of keys, white space and the spelling of numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from pydantic import Field, JsonValue

from coe.router.answers import AnswerKind, clip, fenced_blocks, kind_of_text
from coe.router.types import Record

_MAX_STARTS: Final = 50
"""Opening braces tried before giving up; bounds the time on an answer that is all braces. Ours."""
_OPENING: Final = "\"'`*“”„‘’«»¿¡([ "
_CLOSING: Final = _OPENING + ".,;:!?…)]"


class Options(Record):
    """`expected`: fields and values that are right. `exact_keys`: fields beyond them lower the score. `strict_types`:
    `"3"` is not `3`; otherwise scalars are graded by their text, ignoring case and surrounding punctuation."""

    expected: dict[str, JsonValue] = Field(default={})
    exact_keys: bool = False
    strict_types: bool = False


def build(options: Options) -> AnswerKind:
    """Build the kind whose keys are an answer's object in one line with sorted keys; `3.0` is `3`. The score is the
    number of right fields divided by that of expected fields; with `exact_keys` surplus fields join the denominator.
    Names of fields are compared as written."""
    spelled = _whole if options.strict_types else _text
    expected = {name: _line(value, spelled) for name, value in options.expected.items()}

    def key(answer: str) -> str | None:
        found = _object_in(clip(answer))
        return None if found is None else _line(found, _whole)

    def score(answer: str) -> float:
        found = _object_in(clip(answer)) or {}
        right = sum(name in found and _line(found[name], spelled) == value for name, value in expected.items())
        return right / len(expected.keys() | (found.keys() if options.exact_keys else ()))

    return kind_of_text(key, score=score if expected else None)


def _line(value: JsonValue, spelled: Callable[[JsonValue], JsonValue]) -> str | None:
    """Render a value in one line with sorted keys and scalars as `spelled`; None if it is nested too deep."""

    def plain(part: JsonValue) -> JsonValue:
        if isinstance(part, dict):
            return {name: plain(inner) for name, inner in part.items()}
        return [plain(inner) for inner in part] if isinstance(part, list) else spelled(part)

    try:
        return json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
    except RecursionError:
        return None


def _whole(value: JsonValue) -> JsonValue:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: JsonValue) -> JsonValue:
    """Return the text of a scalar; true and null as JSON writes them."""
    if isinstance(value, str):
        return " ".join(value.casefold().split()).lstrip(_OPENING).rstrip(_CLOSING)
    return json.dumps(_whole(value))


def _object_in(answer: str) -> dict[str, JsonValue] | None:
    """Return the object in the fenced blocks, else the one in the text."""
    found = (_first_object(text) for text in (*fenced_blocks(answer), answer))
    return next((each for each in found if each is not None), None)


def _first_object(text: str) -> dict[str, JsonValue] | None:
    """Return the first JSON object that parses."""
    start = text.find("{")
    for _ in range(_MAX_STARTS):
        if start < 0:
            return None
        try:
            value, _end = json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return value if isinstance(value, dict) else None
    return None


EXAMPLES = (
    Options(),
    Options(expected={"name": "Ana", "age": 31}),
    Options(expected={"city": "Lima", "tags": ["a", "b"], "open": True}, exact_keys=True, strict_types=True),
)
