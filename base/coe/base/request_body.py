"""The base of every JSON object that a client may send; each unknown key is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, model_validator

MAX_KEYS = 100


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
