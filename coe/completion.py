"""Commands as typer knows them, and their completion in a shell."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from coe.commands import COMMANDS


class Level(TyperGroup):
    """The commands that begin with `words`. Only the one that is typed is imported; others are a name and a summary."""

    words: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        own, depth = self.words, len(self.words)
        shown = [name.split() for name, command in COMMANDS.items() if command.summary]
        return sorted({words[depth] for words in shown if words[:depth] == list(own) and len(words) > depth})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = " ".join((*self.words, cmd_name))
        if name in COMMANDS:
            return TyperCommand(cmd_name, help=COMMANDS[name].summary)
        if cmd_name not in self.list_commands(ctx):
            return None
        group = Level(name=cmd_name, help=f"{cmd_name} ...")
        group.words = (*self.words, cmd_name)
        return group

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        typed, command, rest = super().resolve_command(ctx, args)
        name = " ".join((*self.words, str(typed)))
        return typed, command_of(name) if name in COMMANDS else command, rest


def command_of(name: str) -> Any:
    """The command with its options."""
    module, function = COMMANDS[name].target.split(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(getattr(import_module(module), function))
    return typer.main.get_command(app)


def complete() -> None:
    """Answers `--install-completion`, `--show-completion`, or what a shell asks through `_COE_COMPLETE`."""
    app = typer.Typer(cls=Level, rich_markup_mode=None)
    app.callback()(lambda: None)
    app(prog_name="coe")
