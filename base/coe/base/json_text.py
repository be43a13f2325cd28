"""JSON from outside: a decoder with limits on nesting and number of values, an encoder, and a base for request objects.

orjson (3.13.0 and older) writes past its buffer when lists are nested about 245 deep, which ends the process. No other
module imports it, and nothing nested deeper than `MAX_DEPTH` is decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isinf
from typing import Annotated, Any

import jiter
import orjson
import pydantic_core
from pydantic import AfterValidator, BaseModel, model_validator

MAX_DEPTH = 64
"""Levels of nesting that are decoded; orjson 3.13.0 crashed at about 245."""
MAX_VALUES = 50_000
"""Values in one text. Decoding this many took 0.05 s in the worst arrangement; bodies have few values besides texts."""
MAX_KEYS = 100
"""Keys of one request object; each unknown key would be an error of its own."""


class JsonError(ValueError):
    """A text that is not JSON or exceeds a limit. The message continues a sentence: `is not valid JSON: ...`."""


def from_json(text: bytes | str, *, max_values: int = MAX_VALUES, has_unique_keys: bool = True) -> Any:
    """Parse a JSON text; whole numbers keep every digit, up to 4,300.

    Lone surrogates, NaN and numbers that overflow a float are rejected, because neither an encoder nor an answer can
    hold them.

    Args:
        max_values: values in the whole text, nested ones and containers included, counted before decoding.
        has_unique_keys: reject an object with a repeated key, which two readers could read as two values.

    Raises:
        JsonError: not JSON, too many values, or nested deeper than `MAX_DEPTH`.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    # A value takes two bytes at least, with its comma or bracket.
    if len(raw) > 2 * max_values and has_more_values(raw, max_values):
        raise JsonError(f"holds more than {max_values} values")
    try:
        value = jiter.from_json(raw, allow_inf_nan=False, cache_mode="keys", catch_duplicate_keys=has_unique_keys)
    except ValueError as error:  # the parser itself stops at a depth of 200
        reason = str(error)
        if reason.startswith("recursion limit"):
            raise too_deep() from None
        hint = " (half of a surrogate pair?)" if "hex escape" in reason else ""
        raise JsonError(f"is not valid JSON: {reason[:160]}{hint}") from None
    check_values([value])
    return value


def to_json(value: object, plain: Callable[[Any], object] | None = None) -> bytes:
    """Return the JSON of a value from `from_json` or of this project; its nesting must be bounded.

    Args:
        plain: returns the fields of a pydantic model; None lets pydantic serialize models.
    """
    try:
        return orjson.dumps(value, plain)
    except orjson.JSONEncodeError:  # it writes no whole number of more than 64 bits
        return pydantic_core.to_json(value)


def has_more_values(raw: bytes, most: int) -> bool:
    """Return whether a JSON text has more than `most` values, in linear time, by commas and brackets outside strings.

    An empty list or object with a space inside counts as two. The result for a text that is not JSON is a guess.
    """
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")  # from here on every quote begins or ends a string
    pieces = raw.split(b'"', 4 * (most + 1) + 1)
    if len(pieces) > 4 * (most + 1) + 1:  # a key and a value have two each
        return True
    outside = b'"'.join(pieces[::2])
    # A value follows each comma and each bracket that opens, but for the empty ones; and one is the whole.
    empty = outside.count(b"[]") + outside.count(b"{}")
    return 1 + outside.count(b",") + outside.count(b"[") + outside.count(b"{") - empty > most


def check_values(values: Any, depth: int = 0) -> None:
    """Raise JsonError if a value is nested deeper than `MAX_DEPTH`, or a number overflowed to infinity."""
    for value in values.values() if type(values) is dict else values:
        kind = type(value)
        if kind is str:  # most are
            continue
        if kind is dict or kind is list:
            if depth == MAX_DEPTH:
                raise too_deep()
            check_values(value, depth + 1)
        elif kind is float and isinf(value):
            raise JsonError("is not valid JSON: number out of range")


def too_deep() -> JsonError:
    return JsonError(f"is nested deeper than {MAX_DEPTH} levels")


class Body(BaseModel, frozen=True, extra="forbid"):
    """An object in a request. It rejects too many keys first, because each unknown key is a fault of its own."""

    @model_validator(mode="before")
    @classmethod
    def has_few_keys(cls, values: object) -> object:
        if isinstance(values, dict) and len(values) > MAX_KEYS:
            raise ValueError(f"has {len(values)} keys; allowed: at most {MAX_KEYS}")
        return values


def without_nul(text: str) -> str:
    """Reject the NUL character, which Postgres cannot store in a text."""
    if "\0" in text:
        raise ValueError("holds a NUL character; allowed: any other")
    return text


ColumnText = Annotated[str, AfterValidator(without_nul)]
"""A text that is stored in a column or compared with one."""
