"""A killed command leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.processes import command_of, descendants_of, is_running
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")


def kill_once_there(parent: subprocess.Popen[bytes], words: str) -> set[int]:
    """Kills a process as soon as it has a child whose command line has those words; returns its children."""
    wait_until(lambda: any(words in command_of(pid) for pid in descendants_of(parent.pid)), words)
    found = descendants_of(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    return found


def test_a_killed_grader_ends_the_code_that_it_runs() -> None:
    code = (
        "from coe.base.sandbox.runner import SandboxLimits, run_tests\n"
        "run_tests('import time', 'time.sleep(600)', SandboxLimits(wall_s=600.0))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        orphans = kill_once_there(parent, "child.py")
    wait_until(lambda: not any(is_running(pid) for pid in orphans), "the end of the sandbox")
