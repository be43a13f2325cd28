"""The `coe` command. It imports only the sub-command that is called."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from coe.base.errors import ConfigError, RouterError, allowed_values
from coe.base.extras import needing
from coe.base.private_folder import PRIVATE_UMASK, close_to_others, data_folder_of
from coe.base.visible_text import visible
from coe.cli.commands import COMMANDS, TASKS

PLACES = "Takes --config and --data-dir of `coe` here too, where it reads them."
HELP = {"help_option_names": ["--help", "-h"]}
APP = typer.Typer(rich_markup_mode=None, context_settings=HELP)
# The class of a wrong option or argument is click's; some versions of typer have a copy of click.
UsageError: Any = next(each for each in typer.BadParameter.__mro__ if each.__name__ == "UsageError")


class Group(TyperGroup):
    """The commands whose names begin with `words`. A command that is not called is only a name and a summary."""

    words: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        depth = len(self.words)
        names = [name.split() for name in COMMANDS]
        return list(dict.fromkeys(each[depth] for each in names if tuple(each[:depth]) == self.words))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        if self.words:
            super().format_commands(ctx, formatter)
            return
        for task, commands in TASKS.items():
            with formatter.section(task):
                formatter.write_dl([(name, each.summary) for name, each in commands.items()])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        words = (*self.words, cmd_name)
        if (name := " ".join(words)) in COMMANDS:
            return TyperCommand(cmd_name, short_help=COMMANDS[name].summary)
        if cmd_name not in (known := self.list_commands(ctx)):
            allowed = allowed_values(cmd_name, known)
            raise UsageError(f"unknown command '{' '.join(words)}'{allowed}", ctx)
        group = Group(name=cmd_name, rich_markup_mode=None)
        group.words = words
        return group

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return list(super().parse_args(ctx, args or ["--help"]))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        typed, command, rest = super().resolve_command(ctx, args)
        name = " ".join((*self.words, str(typed)))
        if name in COMMANDS:
            is_asked = ctx.resilient_parsing or not {*rest}.isdisjoint(HELP["help_option_names"])
            ctx.with_resource(needing(f"`coe {name}`", () if is_asked else COMMANDS[name].extras))
            command = command_of(name)
            rest = [*places_before(ctx, command, rest), *rest]
            if not ctx.resilient_parsing:
                keep_private(name, rest)
        return typed, command, rest


def command_of(name: str) -> Any:
    """Return a command with its options."""
    module, function = COMMANDS[name].target.split(":")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(epilog=PLACES)(getattr(import_module(module), function))
    return typer.main.get_command(app)


def places_before(ctx: Any, command: Any, rest: Sequence[str]) -> list[str]:
    """Return the options of `coe` before a command's name, if the command takes them and none follows the name."""
    given = ctx.find_root().params
    options = {each.opts[0]: given[each.name] for each in command.params if given.get(each.name) is not None}
    after = {word.partition("=")[0] for word in rest}
    return [word for option, value in options.items() if option not in after for word in (option, str(value))]


def show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        sys.stdout.write(f"coe {version('composition-of-experts')}\n")
        raise typer.Exit


@APP.callback(cls=Group)
def coe(
    _version: Annotated[bool, typer.Option("--version", "-V", callback=show_version, help="show the version")] = False,
    config: Annotated[Path | None, typer.Option(help="experts.yaml to read; else COE_CONFIG, or experts.yaml")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="folder of everything that is kept; else COE_DATA_DIR, or data")
    ] = None,
) -> None:
    """Route each query to the expert LLM that answers it best within a budget, behind one OpenAI-compatible endpoint.

    `coe up` starts one here, `coe init URL` writes an experts.yaml for endpoints that you have.
    """


def run(name: str, arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; return values that are lists of words are run as further commands.

    An error of this project, or a file that the system refuses, becomes one line on standard error and exit status 1.
    """
    # Every matrix of a router is small (see base.blas); numpy reads this when it is imported, which is after this.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        result = APP([*name.split(), *arguments], prog_name="coe", standalone_mode=False)
    except ConfigError as error:
        return complain(error.problems)
    except RouterError as error:
        return complain([str(error)])
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return complain([f"{error.filename or 'a file'}: cannot be read or written ({error.strerror})"])
    except typer.Abort:
        return complain(["aborted"], status=130)
    except UsageError as error:
        return complain(usage_lines(error), status=2)
    if isinstance(result, list):
        return next((status for words in result if (status := run("", words))), 0)
    return result if isinstance(result, int) else 0


def usage_lines(error: Any) -> list[str]:
    """Describe an invalid option or argument, and name the command that shows its help."""
    from pydantic import ValidationError

    said = error.format_message()  # names the option as well
    said = said.replace("Value error, ", "").replace("Input should be", "must be").partition(", unable to parse")[0]
    if isinstance(error.__cause__, ValidationError):
        got = repr(error.__cause__.errors()[0]["input"])
        said += "" if got in said else f" (got {got})"
    where = error.ctx.command_path if getattr(error, "ctx", None) else "coe"
    return [said, f"see `{where} --help`"]


def keep_private(name: str, arguments: list[str]) -> None:
    """Restrict the files that a command writes, unless they are reports, and those in the data folder to their owner.

    A folder of another user is left as it is: `coe up` and `coe serve` refuse one that is open. A process that crashes
    leaves no core dump, which would hold prompts and keys.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if not COMMANDS[name].is_shown:
        os.umask(PRIVATE_UMASK)
    if (folder := data_folder_of(arguments)).is_dir():
        close_to_others(folder)


def complain(lines: Sequence[str], status: int = 1) -> int:
    """Print errors, one line each, and return the exit status."""
    for line in lines:
        # What is in a file may hold line breaks; a complaint is one line all the same.
        sys.stderr.write(f"coe: {visible(' '.join(line.splitlines()))}\n")
    return status


def main() -> None:
    sys.exit(run("", sys.argv[1:]))
