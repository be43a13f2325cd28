"""A killed command leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")


def children_of(pid: int) -> set[int]:
    """All that descend from a process and run."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = entry.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            child = int(entry.parent.name)
            found |= {child} | children_of(child)
    return found


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill_once_there(parent: subprocess.Popen[bytes], words: str) -> set[int]:
    """Kills a process as soon as it has a child whose command line has those words; returns its children."""
    wait_until(lambda: any(words in command_of(pid) for pid in children_of(parent.pid)), words)
    found = children_of(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    return found


def test_a_killed_grader_ends_the_code_that_it_runs() -> None:
    code = (
        "from base.sandbox.runner import SandboxLimits, run_tests\n"
        "run_tests('import time', 'time.sleep(600)', SandboxLimits(wall_s=600.0))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        orphans = kill_once_there(parent, "child.py")
    wait_until(lambda: not any(is_running(pid) for pid in orphans), "the end of the sandbox")
