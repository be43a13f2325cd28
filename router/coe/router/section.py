"""Base class of every part of experts.yaml."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def check_name(name: str) -> str:
    """Check that a name keeps to a safe alphabet, because names travel in headers, metric labels and URLs."""
    if not name or len(name) > 64 or not all((c.isalnum() and c.isascii()) or c in "._-" for c in name):
        raise ValueError(f"'{name}' is not a name: use 1 to 64 letters, digits, '.', '_' or '-'")
    return name


Name = Annotated[str, AfterValidator(check_name)]
EnvironmentName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]

HTTP_URL = re.compile(r"^https?://[!-~]+$")
HttpUrl = Annotated[str, Field(pattern=HTTP_URL.pattern)]
"""Printable ASCII: a line break would end a line of a request's head."""

# A larger value is a typing error, and products and sums with it would overflow.
Billions = Annotated[float, Field(ge=0, le=1e6)]
Usd = Annotated[float, Field(ge=0, le=1e6)]
Seconds = Annotated[float, Field(ge=0, le=1e7)]


class Section(BaseModel):
    """A part of experts.yaml: frozen; unknown keys, infinite numbers and `.nan` are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


AUTO = "auto"
"""Model that asks for routing."""


class PluginConfig(BaseModel):
    """`kind` plus that plugin's own options, which `router.plugins` validates."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kind: str

    @property
    def options(self) -> dict[str, object]:
        return dict(self.__pydantic_extra__ or {})
