"""Fields of a JSON body: each has the type and stays within the bounds that are allowed, or a 400 says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from gateway.http_errors import invalid

JSON_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),  # before numbers: True is an int
    ((int, float), "a number"),
    (str, "a string"),
    (list, "a list"),
    (dict, "an object"),
)


def flag(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        wrong(name, body, "true or false")
    return bool(value)


def count(body: Mapping[str, object], name: str, *, least: int = 1, most: int) -> int | None:
    """A whole number within bounds, or None when absent."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        wrong(name, body, f"a whole number from {least} to {most}")
    return value


def few(body: Mapping[str, object], name: str, most: int) -> None:
    """Refuses a list or an object with more entries than that."""
    value = body.get(name)
    if isinstance(value, list | dict) and len(value) > most:
        raise invalid(f"'{name}' has {len(value)} entries; allowed: at most {most}", name)


def typed(body: Mapping[str, object], name: str, kind: type, allowed: str) -> Any:
    """A field that is absent, null or of that type."""
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        wrong(name, body, allowed)
    return value


def wrong(name: str, body: Mapping[str, object], allowed: str) -> NoReturn:
    if name not in body:
        raise invalid(f"'{name}' is required: {allowed}", name, code="missing_required_parameter")
    value = body[name]
    shown = shorten(value) if isinstance(value, str | int | float | bool | None) else json_type(value)
    raise invalid(f"'{name}' is {shown}; allowed: {allowed}", name)


def shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def json_type(value: object) -> str:
    """JSON's word for a value's type."""
    for kinds, word in JSON_TYPES:
        if isinstance(value, kinds):
            return word
    return "null"
