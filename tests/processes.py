"""Processes of this machine, as /proc tells of them."""

from __future__ import annotations

from pathlib import Path


def state_and_parent(pid: int) -> tuple[str, int]:
    """Of one that is gone: Z, as of one that nobody has reaped yet, and 0."""
    try:
        state, parent = Path(f"/proc/{pid:d}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "Z", 0
    return state, int(parent)


def is_running(pid: int) -> bool:
    return state_and_parent(pid)[0] != "Z"


def descendants_of(pid: int) -> set[int]:
    """All that a process has started, and those have, and so on, where they run."""
    found, fresh = set[int](), {pid}
    told = {int(entry.name): state_and_parent(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
    while fresh := {child for child, (state, parent) in told.items() if parent in fresh and state != "Z"} - found:
        found |= fresh
    return found


def command_of(pid: int) -> str:
    """Its words; empty of one that is gone."""
    try:
        return Path(f"/proc/{pid:d}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
