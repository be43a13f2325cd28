"""JSON from outside: one decoder, with bounds on nesting and on the number of values, the encoder of what it gave, and
the base of every object that a client may send.

orjson (3.13.0 and older) writes past its buffer when lists are nested some 245 deep, which ends the process. So nothing
else in the project imports it, and nothing nested deeper than `MAX_DEPTH` is decoded.
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
MAX_VALUES = 50_000
"""A body has few values besides its texts; so many are decoded in about 0.05 s, however they are arranged."""
MAX_KEYS = 100


class JsonError(ValueError):
    """A text that is not JSON or exceeds a bound. The message continues a sentence: `is not valid JSON: ...`."""


def from_json(text: bytes | str, *, max_values: int = MAX_VALUES, has_unique_keys: bool = True) -> Any:
    """The value of a JSON text, its whole numbers to the last digit (of at most 4,300).

    Lone surrogates, NaN and numbers that overflow a float are refused: neither an encoder nor an answer can hold them.

    Args:
        max_values: strings, numbers, lists, ... and objects in the whole text, counted before anything is decoded.
        has_unique_keys: refuse an object that has a key twice, which two readers could read as two values.

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
    """The JSON of a value that `from_json` gave or that this project made, never of one of unbounded depth.

    Args:
        plain: the fields of a model of pydantic's, which writes them itself where this is None.
    """
    try:
        return orjson.dumps(value, plain)
    except orjson.JSONEncodeError:  # it writes no whole number of more than 64 bits
        return pydantic_core.to_json(value)


def has_more_values(raw: bytes, most: int) -> bool:
    """Returns True when a JSON text holds more than `limit` values, by its commas and brackets outside strings. Linear.

    An empty list or object with a space inside counts as two; of what is not JSON the answer is a guess.
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
    """Raises JsonError where an object or a list holds a value nested too deep, or a number that became infinite."""
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
    """An object of a request. Each unknown key is a fault of its own, so one with very many is refused before."""

    @model_validator(mode="before")
    @classmethod
    def has_few_keys(cls, values: object) -> object:
        if isinstance(values, dict) and len(values) > MAX_KEYS:
            raise ValueError(f"has {len(values)} keys; allowed: at most {MAX_KEYS}")
        return values


def without_nul(text: str) -> str:
    """Refuses what Postgres keeps in no text."""
    if "\0" in text:
        raise ValueError("holds a NUL character; allowed: any other")
    return text


ColumnText = Annotated[str, AfterValidator(without_nul)]
"""A text that becomes a column, or is compared with one."""
