"""The `coe` command: one table of sub-commands, of which only the one that is called is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple


class Command(NamedTuple):
    """A sub-command: `target` is "module:function", a plain function annotated for typer.

    `summary` is empty for one that another command starts: no help shows it.
    `is_shown`: it writes reports where the user says, with the user's own umask.
    """

    target: str
    summary: str
    is_shown: bool = False


COMMANDS = {
    "up": Command(
        "gateway.run_commands:up", "Start everything: services, experts, router, gateway; then one query per category."
    ),
    "serve": Command("gateway.run_commands:serve", "Start the gateway alone, for production."),
    "serve worker": Command("gateway.worker:serve_worker", ""),
    "serve log": Command("gateway.worker:serve_log", ""),
    "init": Command("fleet.setup.commands:init", "Write an experts.yaml for endpoints that you have."),
    "import-litellm": Command(
        "fleet.setup.commands:import_litellm", "Write an experts.yaml from a LiteLLM proxy's config.yaml."
    ),
    "import-tensorzero": Command(
        "fleet.setup.commands:import_tensorzero", "Write an experts.yaml from a TensorZero gateway's tensorzero.toml."
    ),
    "check": Command("gateway.check_command:check", "Validate experts.yaml, and list its experts.", is_shown=True),
    "config plan": Command(
        "gateway.changes.commands:plan", "Show what experts.yaml would change in running gateways.", is_shown=True
    ),
    "config apply": Command("gateway.changes.commands:apply", "Have running gateways take experts.yaml as it is now."),
    "config rollback": Command("gateway.changes.commands:rollback", "Go back to the configuration before."),
    "deploy render": Command(
        "gateway.deploy.render_command:render",
        "Write files that start it with Docker Compose, on Kubernetes or on Ray.",
        is_shown=True,
    ),
    "route": Command("fleet.route_command:route", "Print the decision for a text, and why.", is_shown=True),
    "train": Command("training.train_command:train", "Fit a router from labelled queries and outcomes."),
    "retrain": Command(
        "training.train_command:retrain",
        "Learn a better router, and better pilots of retrieval, from the decision log.",
    ),
    "router ls": Command("training.train_command:router_ls", "List trained routers, or show one."),
    "router try": Command(
        "training.trial_commands:router_try",
        "Try a router on a share of the traffic, or in the shadow of the live one; a worse one is withdrawn.",
    ),
    "router promote": Command("training.trial_commands:router_promote", "Make a router the live one."),
    "router rollback": Command("training.trial_commands:router_rollback", "Go back to the router before."),
    "categories propose": Command(
        "training.category_commands:categories_propose",
        "Find topics that the router does not know, and categories without traffic.",
    ),
    "categories accept": Command(
        "training.category_commands:categories_accept",
        "Write a proposed change of categories as files to review and commit.",
    ),
    "experts ls": Command(
        "training.worth_command:experts_ls", "List the experts, and what would be lost without each."
    ),
    "experts up": Command("gateway.experts_commands:up", "Start the vLLM engines of experts.yaml alone."),
    "experts stop": Command("gateway.experts_commands:stop", "End those engines, or some of them."),
    "experts logs": Command("gateway.experts_commands:logs", "Show the last lines of an engine's log."),
    "experts sleep": Command("gateway.experts_commands:sleep", "Free an engine's GPU memory, once it has no requests."),
    "experts wake": Command("gateway.experts_commands:wake", "Wake an engine, or start one that was stopped."),
    "experts pin": Command("gateway.experts_commands:pin", "Keep an expert awake."),
    "experts probe": Command(
        "training.probe_commands:experts_probe", "Score a new expert on a few graded probes and put it on the map."
    ),
    "experts train-lora": Command(
        "training.lora.commands:train_lora",
        "Train an expert for one category, and add it where it is surely better than its base.",
    ),
    "experts merge": Command("training.lora.commands:merge", "Merge rarely used adapters into one expert."),
    "eval routing": Command(
        "eval.routing.routing_command:routing", "Report what routing won on an outcome table.", is_shown=True
    ),
    "eval robustness": Command(
        "eval.robustness.robustness_command:robustness",
        "Measure which decisions flip under harmless changes; run routes.test.yaml.",
        is_shown=True,
    ),
    "eval log": Command(
        "eval.log.log_command:log", "Report on production traffic from the decision log.", is_shown=True
    ),
    "eval collect": Command("eval.collect_command:collect", "Run prompts through the experts and grade the answers."),
    "eval retrieval": Command(
        "eval.retrieval.retrieval_command:retrieval",
        "Report what routing between retrieval experts won on collections with judgements.",
        is_shown=True,
    ),
    "retrieval train": Command(
        "retrieval.training.train_command:train",
        "Train a retrieval expert: a LoRA adapter on the queries of a collection.",
    ),
    "retrieval pilots": Command(
        "retrieval.training.pilots_command:pilots", "Build the pilot library that routes between retrieval experts."
    ),
    "retrieval export": Command(
        "retrieval.stores.export_command:export",
        "Write vector stores and the feedback on their searches as collections.",
    ),
    "outcomes import": Command(
        "training.datasets.import_command:import_outcomes", "Make an outcome table of another tool's files."
    ),
    "outcomes export": Command(
        "eval.export:export_outcomes",
        "Write an outcome table for another tool.",
        is_shown=True,
    ),
    "replay": Command(
        "gateway.replay.commands:replay", "Make a logged decision again, or show what another router would have done."
    ),
    "keys create": Command("gateway.keys.commands:create", "Make a key of a team, with limits."),
    "keys ls": Command("gateway.keys.commands:ls", "List teams and keys with their limits."),
    "keys limits": Command("gateway.keys.commands:limits", "Show or change the limits of a key or a team."),
    "keys rotate": Command("gateway.keys.commands:rotate", "Give a key a new secret."),
    "keys revoke": Command("gateway.keys.commands:revoke", "End a key."),
    "keys log": Command("gateway.keys.commands:log", "List what admins did, and who they are."),
    "log doctor": Command(
        "decision_log.commands:doctor", "Prove that the decision log lost nothing, or name the gaps."
    ),
    "log migrate": Command(
        "gateway.migrate_command:migrate", "Copy the database into an empty one, for instance SQLite's to Postgres."
    ),
    "log drain": Command("decision_log.commands:drain", "Write what waits in the stream to SQL, once or always."),
    "log feedback": Command(
        "training.feedback_command:log_feedback",
        "Show who gives feedback, what that hides, and which signals agree with it.",
    ),
    "log erase": Command(
        "decision_log.removal_commands:erase_decisions", "Erase every decision of a subject, or older than a given age."
    ),
    "log archive": Command(
        "decision_log.removal_commands:archive_decisions", "Move old decisions from SQL to Parquet files."
    ),
}


HELP = ("--help", "-h", "help")


def help_text(commands: Mapping[str, Command], group: str = "") -> str:
    """The text of `coe --help`, or of `coe GROUP`."""
    shown = sorted(name for name, command in commands.items() if command.summary and in_group(name, group))
    width = max(map(len, shown))
    lines = [filled(f"  {name:<{width}}  {commands[name].summary}", width + 4) for name in shown]
    about = [
        "A composition of experts: one OpenAI-compatible endpoint that routes each query",
        "to the expert that answers it best within a budget.",
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
    """The complaint about a command that does not exist."""
    from base.errors import allowed_values

    known = [name.split()[1] for name in commands if in_group(name, arguments[0])]
    if known and len(arguments) > 1:
        return f"unknown command '{arguments[0]} {arguments[1]}'{allowed_values(arguments[1], known)}"
    return f"unknown command '{arguments[0]}'{allowed_values(arguments[0], commands)}"


def run(name: str, arguments: list[str]) -> int:
    """Runs one command; an error that we raise on purpose, or a file that the system refuses, becomes one line on
    standard error and exit status 1."""
    import errno
    import os
    from importlib import import_module

    import typer

    from base.errors import ConfigError, RouterError

    # Every matrix of a router is small (see base.blas); numpy reads this when it is imported, which is after this.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    module, function = COMMANDS[name].target.split(":")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(getattr(import_module(module), function))
    try:
        result = app(arguments, prog_name=f"coe {name}", standalone_mode=False)
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
        return complain([said.replace("Value error, ", ""), f"see `coe {name} --help`"], status=2)
    return result if isinstance(result, int) else 0


def keep_private(name: str, arguments: list[str]) -> None:
    """Makes a command's files readable by its user alone, unless they are meant to be shown, and also the files that
    the data folder already holds. A folder of another user is left as it is: `coe up` and `coe serve` refuse one that
    is open."""
    import os

    from base.private_folder import PRIVATE_UMASK, close_to_others, data_folder_of

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
    """Entry point of the `coe` script."""
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
