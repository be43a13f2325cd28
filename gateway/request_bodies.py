"""JSON bodies of the REST part: bounded, and their faults in the client's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.http_errors import ApiError, invalid


def validation_error(faults: Sequence[Any], body: object) -> ApiError:
    """The first fault with its field. Values may be prompt text and are not repeated.

    Of a union every branch that was tried has a fault; the one that got furthest is the one that was meant.
    """
    if not faults:
        return invalid("the body is not valid")
    paths = [path_of(fault, body) for fault in faults]
    same_field = [place for place, path in enumerate(paths) if path[:1] == paths[0][:1]]
    place = max(same_field, key=lambda each: len(paths[each]))
    fault, path = faults[place], written(paths[place])
    if fault["type"] == "json_invalid":
        return invalid("the body is not valid JSON", code="invalid_json")
    return invalid(f"'{path or 'body'}': {message_of(fault)}", path or None)


def message_of(fault: Mapping[str, Any]) -> str:
    """pydantic's, where it does not quote the value or speak of its own inside."""
    if fault["type"] == "union_tag_not_found":
        return "Field required"
    if fault["type"] == "union_tag_invalid":
        return f"Input should be one of {fault['ctx']['expected_tags']}"
    return str(fault["msg"]).removeprefix("Value error, ")


def path_of(fault: Mapping[str, Any], body: object) -> tuple[str | int, ...]:
    """The place of a fault in the request. Names that pydantic gives the branches of a union are not in the body."""
    if fault["type"] == "json_invalid":
        return ()
    where, *parts = fault["loc"]
    if where != "body":
        return tuple(parts)
    kept: list[str | int] = []
    value: Any = body
    for place, part in enumerate(parts):
        if holds(value, part):
            kept.append(part)
            value = value[part]
        elif fault["type"] == "missing" and place == len(parts) - 1:
            kept.append(part)
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kept.append(fault["ctx"]["discriminator"].strip("'"))
    return tuple(kept)


def holds(value: object, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def written(path: Sequence[str | int]) -> str:
    """The path of a field as chat errors write it: `texts[0].filename`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
