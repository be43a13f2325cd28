"""The number of connections keeps within the process's limit on open files."""

from __future__ import annotations

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
from gateway.serve import clients_that_fit
print(clients_that_fit(int(sys.argv[3])), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "clients", "files"),
    [
        (256, 2000, 500, 500, 1512),  # raised as far as it is needed
        (256, 1000, 2048, 244, 1000),  # raised as far as it may be
        (256, 300, 2048, 16, 300),
        (1900, 2000, 100, 100, 1900),  # never lowered
    ],
)
def test_the_limit_is_raised_and_kept(soft: int, hard: int, wanted: int, clients: int, files: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip(f"this machine allows fewer than {hard} open files")
    arguments = [str(each) for each in (soft, hard, wanted)]
    run = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(clients), str(files)]
    assert ("ulimit -n" in run.stderr) is (clients < wanted)
