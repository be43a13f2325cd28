"""Sub-commands of the gateway package, found through the entry-point group `coe.commands`."""

from __future__ import annotations

COMMANDS: dict[str, str] = {
    "log doctor": "gateway.decision_log.commands:doctor",
    "log drain": "gateway.decision_log.commands:drain",
}
