"""The table of sub-commands of `coe`."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A sub-command: `target` is "module:function", a plain function annotated for typer.

    It returns nothing, its exit status, or commands of other rooms to run after it, up to the first that fails.
    `summary` is empty for one that another command starts: no help shows it.
    `is_shown`: it writes reports where the user says, with the user's own umask.
    `extras`: those it cannot do without, looked for before it asks or computes anything.
    """

    target: str
    summary: str
    is_shown: bool = False
    extras: tuple[str, ...] = ()


TASKS = {
    "Start": ("up", "serve", "init", "check", "config", "deploy"),
    "Route": ("route", "replay", "router"),
    "Learn": ("train", "retrain", "outcomes"),
    "Prove": ("eval",),
    "Experts and retrieval": ("experts", "retrieval"),
    "Operate": ("keys", "log"),
}
"""The first words of commands by what they are for, as `coe --help` lists them."""

COMMANDS = {
    "up": Command(
        "coe.gateway.run_commands:up",
        "Start everything: services, experts, router, gateway.",
    ),
    "serve": Command("coe.gateway.run_commands:serve", "Start the gateway alone, for production."),
    "init": Command(
        "coe.fleet.setup.init_commands:init",
        "Write an experts.yaml for endpoints that you have, or from LiteLLM's.",
    ),
    "check": Command("coe.gateway.check_command:check", "Validate experts.yaml, and list its experts.", is_shown=True),
    "config apply": Command(
        "coe.gateway.config_commands:apply",
        "Have running gateways take experts.yaml as it is now, or go one step back.",
    ),
    "deploy render": Command(
        "coe.gateway.deploy.render_command:render",
        "Write files that start the composition with Docker Compose or on Kubernetes.",
        is_shown=True,
    ),
    "route": Command(
        "coe.fleet.route_command:route",
        "Print the decision for a text, and why; or check routes.test.yaml.",
        is_shown=True,
    ),
    "train": Command(
        "coe.training.train_command:train",
        "Fit a router from labelled queries and outcomes.",
        extras=("train",),
    ),
    "retrain": Command(
        "coe.training.train_command:retrain",
        "Learn a better router, and better pilots of retrieval, from the decision log.",
        extras=("train",),
    ),
    "router": Command(
        "coe.training.train_command:router", "List trained routers, or show one, make it live, try it out, go back."
    ),
    "experts up": Command(
        "coe.gateway.experts_commands:up", "Start the vLLM engines of experts.yaml, without a gateway."
    ),
    "experts probe": Command(
        "coe.eval.probe_command:experts_probe",
        "Score a new expert on a few graded probes and put it on the map.",
        extras=("train",),
    ),
    "experts train-lora": Command(
        "coe.training.lora.lora_commands:train_lora",
        "Train an expert for one category, and add it where it is surely better than its base.",
        extras=("adapters", "train"),
    ),
    "eval routing": Command(
        "coe.eval.routing.routing_command:routing",
        "Report what routing won on an outcome table.",
        is_shown=True,
        extras=("eval", "train"),
    ),
    "eval log": Command(
        "coe.eval.log.log_command:log",
        "Report on production traffic from the decision log.",
        is_shown=True,
        extras=("eval", "train"),
    ),
    "eval collect": Command(
        "coe.eval.collect_command:collect",
        "Run prompts through the experts and grade the answers.",
        extras=("train",),
    ),
    "eval retrieval": Command(
        "coe.eval.retrieval.retrieval_command:retrieval",
        "Report what routing between retrieval experts won on collections with judgements.",
        is_shown=True,
        extras=("eval", "train"),
    ),
    "retrieval train": Command(
        "coe.retrieval.training.train_commands:train",
        "Train a retrieval expert: the base's query side on the queries of a collection.",
        extras=("retrieval", "train"),
    ),
    "retrieval pilots": Command(
        "coe.retrieval.training.train_commands:pilots",
        "Build the pilot library that routes between retrieval experts.",
        extras=("train",),
    ),
    "retrieval export": Command(
        "coe.retrieval.stores.export:export",
        "Write vector stores and the feedback on their searches as collections.",
    ),
    "outcomes import": Command(
        "coe.training.datasets.outcome_import:import_outcomes",
        "Make an outcome table of another tool's files.",
        extras=("train",),
    ),
    "replay": Command(
        "coe.gateway.replay_command:replay",
        "Make a logged decision again, or show what another router would have done.",
    ),
    "keys create": Command("coe.gateway.key_commands:create", "Make a key of a team, with limits."),
    "keys ls": Command("coe.gateway.key_commands:ls", "List teams and keys with their limits, or what admins did."),
    "keys update": Command(
        "coe.gateway.key_commands:update", "Change the limits of a key or a team; rotate or end a key."
    ),
    "log doctor": Command(
        "coe.decision_log.doctor_commands:doctor", "Prove that the decision log lost nothing, or name the gaps."
    ),
    "log drain": Command(
        "coe.decision_log.doctor_commands:drain", "Write what waits in the stream to SQL, once or always."
    ),
    "log erase": Command(
        "coe.decision_log.erase:erase_decisions",
        "Erase every decision of a subject.",
    ),
}
