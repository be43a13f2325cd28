"""The `coe` command. Of its sub-commands only the one that is called is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from coe.commands import COMMANDS, Command

HELP = ("--help", "-h", "help")


def help_text(commands: Mapping[str, Command], group: str = "") -> str:
    """The text of `coe --help`, or of `coe GROUP`."""
    shown = sorted(name for name, command in commands.items() if command.summary and in_group(name, group))
    width = max(map(len, shown))
    lines = [filled(f"  {name:<{width}}  {commands[name].summary}", width + 4) for name in shown]
    about = [
        "A composition of experts: one OpenAI-compatible endpoint that routes each query",
        "to the expert that answers it best within a budget. `coe up` starts one here,",
        "`coe init URL` writes an experts.yaml for endpoints that you have.",
        "",
    ]
    more = "" if group else " `coe --install-completion` completes them in your shell."
    return "\n".join(
        [
            f"usage: coe {group or 'COMMAND'} {'COMMAND ' if group else ''}[OPTIONS]",
            "",
            *([] if group else about),
            "commands:",
            *lines,
            "",
            filled(f"`coe COMMAND --help` shows a command's options.{more}", 0),
        ]
    )


def filled(line: str, indent: int) -> str:
    """The line in as many of 80 columns as it needs, each but the first behind so many spaces."""
    import textwrap

    return textwrap.fill(line, 80, subsequent_indent=" " * indent, break_on_hyphens=False)


def in_group(name: str, group: str) -> bool:
    """Returns True for a command of a group; of "", for every one."""
    return not group or name.startswith(f"{group} ")


def resolve(arguments: list[str], commands: Mapping[str, Command]) -> tuple[str, list[str]] | None:
    """The command that the first one or two words name, with the rest of the arguments; None when there is none."""
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if len(arguments) >= words and name in commands:
            return name, arguments[words:]
    return None


def unknown_command(arguments: list[str], commands: Mapping[str, Command]) -> str:
    from base.errors import allowed_values

    commands = {name: command for name, command in commands.items() if command.summary}
    known = [name.split()[1] for name in commands if in_group(name, arguments[0])]
    if known and len(arguments) > 1:
        return f"unknown command '{arguments[0]} {arguments[1]}'{allowed_values(arguments[1], known)}"
    return f"unknown command '{arguments[0]}'{allowed_values(arguments[0], commands)}"


def run(name: str, arguments: list[str]) -> int:
    """Runs one command; an error that we raise on purpose, or a file that the system refuses, becomes one line on
    standard error and exit status 1. A command may return others to run after it, as lists of words."""
    import errno
    import os

    import typer
    from pydantic import ValidationError

    from base.errors import ConfigError, RouterError
    from base.extras import needing
    from coe.completion import command_of

    # Every matrix of a router is small (see base.blas); numpy reads this when it is imported, which is after this.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    try:
        with needing(f"`coe {name}`", () if {*arguments} & {*HELP} else COMMANDS[name].extras):
            result = command_of(name)(arguments, prog_name=f"coe {name}", standalone_mode=False)
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
    except typer.Exit as ending:
        return ending.exit_code
    except usage_error() as error:
        said = error.format_message() if hasattr(error, "format_message") else str(error)  # names the option as well
        said = said.replace("Value error, ", "").replace("Input should be", "must be")  # pydantic's words, in ours
        said = said.partition(", unable to parse")[0]
        if isinstance(error.__cause__, ValidationError):
            got = repr(error.__cause__.errors()[0]["input"])
            said += "" if got in said else f" (got {got})"
        return complain([said, f"see `coe {name} --help`"], status=2)
    if isinstance(result, list):
        return next((status for words in result if (status := run(" ".join(words[:2]), words[2:]))), 0)
    return result if isinstance(result, int) else 0


def keep_private(name: str, arguments: list[str]) -> None:
    """Makes a command's files readable by its user alone, unless they are meant to be shown, and also the files that
    the data folder already holds. A folder of another user is left as it is: `coe up` and `coe serve` refuse one that
    is open. A process that crashes leaves no core, which would hold prompts and keys."""
    import os
    import resource

    from base.private_folder import PRIVATE_UMASK, close_to_others, data_folder_of

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if not COMMANDS[name].is_shown:
        os.umask(PRIVATE_UMASK)
    if (folder := data_folder_of(arguments)).is_dir():
        close_to_others(folder)


def usage_error() -> type[Exception]:
    """The class of a wrong option or argument; typer raises click's, or its own copy in versions that vendor click."""
    import typer

    parents = [p for p in typer.BadParameter.__mro__ if issubclass(p, Exception) and p.__name__ == "ClickException"]
    return parents[0]


def complain(lines: list[str] | tuple[str, ...], status: int = 1) -> int:
    from base.visible_text import visible

    for line in lines:
        # What is in a file may hold line breaks; a complaint is one line all the same.
        sys.stderr.write(f"coe: {visible(' '.join(line.splitlines()))}\n")
    return status


def main() -> None:
    import os

    arguments = sys.argv[1:]
    if "_COE_COMPLETE" in os.environ or arguments[:1] in (["--install-completion"], ["--show-completion"]):
        from coe.completion import complete

        complete()
    if not arguments or arguments[0] in HELP:
        sys.stdout.write(help_text(COMMANDS) + "\n")
        sys.exit(0)
    if arguments[0] in ("--version", "-V"):
        from importlib.metadata import version

        sys.stdout.write(f"coe {version('composition-of-experts')}\n")
        sys.exit(0)
    found = resolve(arguments, COMMANDS)
    if found is None:
        if arguments[1:] in ([], *([word] for word in HELP)) and any(in_group(name, arguments[0]) for name in COMMANDS):
            sys.stdout.write(help_text(COMMANDS, arguments[0]) + "\n")
            sys.exit(0)
        sys.exit(complain([unknown_command(arguments, COMMANDS), "see `coe --help`"], status=2))
    name, rest = found
    keep_private(name, rest)
    sys.exit(run(name, rest))
