"""Filters on the attributes of a store's files, in OpenAI's notation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Annotated, Literal

from pydantic import Field

from coe.base.json_text import Body

Number = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]  # what every JSON reader takes for the same number
Scalar = str | bool | Whole | Number
Attributes = Mapping[str, Scalar]
MAX_FILTERS = 100
MAX_DEPTH = 8
ORDERS: Mapping[str, Callable[[float, float], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


class Comparison(Body):
    """A comparison of one attribute with a value. A file without the attribute matches only `ne` and `nin`."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: str = Field(min_length=1, max_length=64)
    value: Scalar | Annotated[tuple[Scalar, ...], Field(fail_fast=True)]


class Compound(Body):
    """A conjunction or disjunction of filters."""

    type: Literal["and", "or"]
    filters: tuple[Filter, ...] = Field(min_length=1, max_length=MAX_FILTERS, fail_fast=True)


Filter = Annotated[Comparison | Compound, Field(discriminator="type")]


def fault_of(condition: Filter, depth: int = 1) -> str | None:
    """Return the fault of a filter beyond its shape, or None."""
    if depth > MAX_DEPTH:
        return f"filters are nested more than {MAX_DEPTH} deep"
    if isinstance(condition, Compound):
        faults = (fault_of(each, depth + 1) for each in condition.filters)
        return next((fault for fault in faults if fault is not None), None)
    is_list = isinstance(condition.value, tuple)
    if condition.type in ("in", "nin"):
        return None if is_list else f"'{condition.type}' on '{condition.key}' takes a list of values"
    if is_list:
        return f"'{condition.type}' on '{condition.key}' takes one value, not a list; allowed for lists: in, nin"
    if condition.type in ORDERS and not is_number(condition.value):
        return f"'{condition.type}' on '{condition.key}' takes a number"
    return None


def matches(condition: Filter, attributes: Attributes) -> bool:
    """Return whether a file with those attributes passes."""
    if isinstance(condition, Compound):
        verdicts = (matches(each, attributes) for each in condition.filters)
        return all(verdicts) if condition.type == "and" else any(verdicts)
    held, value = attributes.get(condition.key), condition.value
    if condition.type in ("eq", "ne"):
        return is_same(held, value) == (condition.type == "eq")
    if condition.type in ("in", "nin"):
        values = value if isinstance(value, tuple) else (value,)
        return any(is_same(held, each) for each in values) == (condition.type == "in")
    return is_number(held) and ORDERS[condition.type](float(held), float(value))  # type: ignore[arg-type]


def is_same(held: object, value: object) -> bool:
    """Return whether values are equal and of one kind: true is not 1."""
    return held == value and isinstance(held, bool) == isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
