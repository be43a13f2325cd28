"""Sub-commands of the gateway package, found through the entry-point group `coe.commands`."""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "up": "gateway.run_commands:up",
    "serve": "gateway.run_commands:serve",
    "check": "gateway.check_command:check",
    "experts up": "gateway.run_commands:experts_up",
    "experts ls": "gateway.run_commands:experts_ls",
    "replay": "gateway.replay.commands:replay",
    "retrieval export": "retrieval.stores.export_command:export",
    "log doctor": "decision_log.commands:doctor",
    "log drain": "decision_log.commands:drain",
    "log prune": "decision_log.removal_commands:prune",
    "log erase": "decision_log.removal_commands:erase_subject",
    "log consume": "decision_log.commands:consume",
}
