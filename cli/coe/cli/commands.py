"""The table of sub-commands of `coe`, from commands.toml, which documents the fields."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """A sub-command."""

    target: str
    summary: str
    is_shown: bool = False
    extras: Sequence[str] = ()


TASKS = {
    task: {name: Command(**fields) for name, fields in commands.items()}
    for task, commands in tomllib.loads(Path(__file__).with_name("commands.toml").read_text(encoding="utf-8")).items()
}
COMMANDS = {name: command for commands in TASKS.values() for name, command in commands.items()}
