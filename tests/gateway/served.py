"""`coe serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.waiting import DEADLINE_S


def environment_of(config: Path, data: Path) -> dict[str, str]:
    """That of commands on a data folder."""
    return {**os.environ, "COE_CONFIG": str(config), "COE_DATA_DIR": str(data), "COE_PORT": "0"}


def start_gateway(
    config: Path, data: Path, coe: Sequence[str] = (sys.executable, "-m", "coe"), **more: str
) -> tuple[subprocess.Popen[str], str]:
    """A gateway on a free port, and its URL. `coe` is the command that runs ours, `more` further variables."""
    process = subprocess.Popen(
        [*coe, "serve"],
        env=environment_of(config, data) | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in process.stdout:
        found = re.search(r"gateway at (http://\S+)", line)
        if found:
            return process, found[1]
        lines.append(line)
    raise AssertionError(f"the gateway did not start: {''.join(lines)}")


def end_gateway(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """Ends it by a signal; returns what it wrote since its start."""
    process.send_signal(number)
    rest, _ = process.communicate(timeout=DEADLINE_S)
    return rest
