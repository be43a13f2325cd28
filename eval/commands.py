"""Sub-commands of the eval package, found through the entry-point group `coe.commands`."""

from __future__ import annotations

COMMANDS: dict[str, str] = {}
