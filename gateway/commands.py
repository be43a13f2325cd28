"""Sub-commands of the gateway package, found through the entry-point group `coe.commands`."""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "up": "gateway.run_commands:up",
    "serve": "gateway.run_commands:serve",
    "experts up": "gateway.fleet.commands:up",
    "experts ls": "gateway.fleet.commands:ls",
    "replay": "gateway.replay.commands:replay",
    "retrieval export": "gateway.retrieval.commands:export",
    "log doctor": "gateway.decision_log.commands:doctor",
    "log drain": "gateway.decision_log.commands:drain",
    "log prune": "gateway.decision_log.removal_commands:prune",
    "log erase": "gateway.decision_log.removal_commands:erase_subject",
    "log consume": "gateway.decision_log.commands:consume",
}
