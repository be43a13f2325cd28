"""Options and output that the commands of eval share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated

import typer

from coe.base.errors import ConfigError

ExpertsOption = Annotated[str | None, typer.Option("--experts", help="experts to keep, separated by commas")]


def split_names(value: str | None, option: str) -> tuple[str, ...] | None:
    """Return the names of a comma-separated option, None if it was not given; raise ConfigError if it names nothing."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise ConfigError(f"{option}: '{value}' names nothing; expected names separated by commas")
    return names


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as it was typed, quoted for a shell."""
    return shlex.join(["coe", *arguments])
