"""The number of connections keeps within the process's limit on open files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

PROGRAM = """
import json, resource, sys
from coe.gateway.lifecycle.serve import clients_that_fit
for soft, hard, wanted in json.loads(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(clients_that_fit(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    print("case", file=sys.stderr)
"""
CASES = [  # soft and hard limit, clients wanted; clients that fit, and the soft limit then
    (256, 2000, 500, 500, 1512),  # raised as far as it is needed
    (1900, 2000, 100, 100, 1900),  # never lowered
    (256, 1000, 2048, 244, 1000),  # raised as far as it may be
    (256, 300, 2048, 16, 300),
]


def test_the_limit_is_raised_and_kept() -> None:
    most = max(hard for _, hard, *_ in CASES)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < most:
        pytest.skip(f"this machine allows fewer than {most} open files")
    words = [sys.executable, "-c", PROGRAM, json.dumps([case[:3] for case in CASES])]
    run = subprocess.run(words, capture_output=True, text=True, check=True)
    assert [tuple(map(int, line.split())) for line in run.stdout.splitlines()] == [case[3:] for case in CASES]
    warned = ["ulimit -n" in said for said in run.stderr.split("case\n")[:-1]]
    assert warned == [clients < wanted for _, _, wanted, clients, _ in CASES]
