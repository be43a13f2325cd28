"""`json`: the JSON object in the answer, up to the order of keys, white space and the spelling of numbers."""

from __future__ import annotations

import json

from base.answer_text import clip, object_in
from router.strategies.types import AnswerKind, kind_of_text
from router.types import Record


class Options(Record):
    """There are none."""


def build(options: Options) -> AnswerKind:
    """Keys are the object in one line with sorted keys; `3.0` is `3`."""

    def key(answer: str) -> str | None:
        found = object_in(clip(answer))
        try:
            return None if found is None else json.dumps(plain_numbers(found), sort_keys=True, ensure_ascii=False)
        except RecursionError:  # nested too deep to be an answer
            return None

    return kind_of_text(key)


def plain_numbers(value: object) -> object:
    """The value with whole floats as integers."""
    if isinstance(value, dict):
        return {name: plain_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain_numbers(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


EXAMPLES = (Options(),)
