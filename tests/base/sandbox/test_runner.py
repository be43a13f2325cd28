"""Each attempt catches its own refusal and sets `refused`; so a pass proves that the attempt was made and failed."""

from __future__ import annotations

import ctypes
import platform
import sys
import tempfile
from pathlib import Path

import pytest

from coe.base.sandbox import runner
from coe.base.sandbox.runner import SandboxLimits, run_tests

SHORT = SandboxLimits(cpu_s=1, wall_s=60.0)
HAS_FILTER = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
HAS_LANDLOCK = HAS_FILTER and ctypes.CDLL(None).syscall(444, None, 0, 1) > 0


def is_refused(attempt: str, error: str = "PermissionError") -> bool:
    body = "\n".join(f"    {line}" for line in attempt.splitlines())
    return run_tests(
        f"refused = False\ntry:\n{body}\nexcept {error}:\n    refused = True", "assert refused", SHORT
    ).has_passed


@pytest.mark.parametrize(
    "attempt",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess\nsubprocess.run(['id'])",
        "import os\nos.system('id')",
        "import os\nos.execv('/bin/sh', ['sh'])",
        "import os\nos.posix_spawn('/bin/sh', ['sh'], {})",
        "import os\nos.kill(os.getppid(), 9)",
        "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
        "import socket\nsocket.socketpair()",
        "import urllib.request as r\nr.urlopen('http://127.0.0.1')",
        "import ctypes\nctypes.CDLL(None)",
        "open('file', 'w')",
        "open('/tmp/file', 'a')",
        "import os\nos.open('file', os.O_RDWR | os.O_CREAT)",
        "import os\nos.remove('/etc/hostname')",
        "import os\nos.mkdir('folder')",
        "import os\nos.rename('/etc/hostname', '/etc/host')",
        "import os\nos.chmod('/etc/hostname', 0)",
        "import os\nos.truncate('/etc/hostname', 0)",
    ],
)
def test_processes_network_and_writing_are_refused(attempt: str) -> None:
    errors = "(PermissionError, r.URLError)" if "urllib" in attempt else "PermissionError"
    assert is_refused(attempt, errors)


@pytest.mark.skipif(not HAS_FILTER, reason="no system call filter here")
@pytest.mark.parametrize(
    "attempt",
    [
        "import os\nos.setsid()",
        "import os\nos.nice(1)",
        "import os\nos.sched_setaffinity(0, {0})",
        "import os\nos.chdir('/')",
        "import os\nos.pipe()",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))",
        "import os\nos.memfd_create('x')",
    ],
)
def test_the_kernel_refuses_what_no_audit_event_shows(attempt: str) -> None:
    assert is_refused(attempt, "(PermissionError, ValueError)" if "resource" in attempt else "PermissionError")


@pytest.mark.skipif(not HAS_FILTER, reason="no system call filter here")
@pytest.mark.skipif(not HAS_LANDLOCK, reason="the kernel has no Landlock, or this processor no filter")
@pytest.mark.parametrize("read", ["open({file!r})", "os.open({file!r}, os.O_RDONLY)", "os.listdir({folder!r})"])
def test_files_of_others_are_not_there_to_read(tmp_path: Path, read: str) -> None:
    (tmp_path / "log.key").write_text("a secret")
    assert is_refused("import os\n" + read.format(file=str(tmp_path / "log.key"), folder=str(tmp_path)))
    assert run_tests("import decimal, json, sqlite3, zoneinfo", "", SHORT).has_passed


def test_threads_are_refused() -> None:
    assert is_refused("import threading\nthreading.Thread(target=print).start()", "RuntimeError")


def test_a_fork_bomb_ends_at_once() -> None:
    outcome = run_tests("import os\nwhile True:\n    os.fork()", "pass", SHORT)
    assert not outcome.has_passed
    assert not outcome.is_timed_out


def test_an_endless_loop_ends_by_processor_time() -> None:
    assert not run_tests("while True: pass", "pass", SHORT).has_passed


def test_waiting_ends_by_the_clock() -> None:
    outcome = run_tests("import time\ntime.sleep(60)", "pass", SandboxLimits(wall_s=0.4))
    assert outcome.is_timed_out
    assert not outcome.has_passed


def test_a_memory_hog_ends() -> None:
    assert is_refused("hog = [bytearray(10**8) for _ in range(10)]", "MemoryError")


def test_endless_output_goes_nowhere() -> None:
    assert run_tests("print('x' * 10**7)\nimport os\nos.write(2, b'x' * 10**6)", "pass", SHORT).has_passed


def test_a_flood_of_the_verdict_file_is_bounded_and_no_pass() -> None:
    flood = "import os\ntry:\n    while True: os.write(3, b'x' * 1024)\nexcept OSError:\n    pass"
    outcome = run_tests(flood, "pass", SandboxLimits(cpu_s=60, wall_s=60.0))
    assert not outcome.is_timed_out
    assert not outcome.has_passed
    assert not run_tests("import os\nos.write(3, b'x')", "pass", SHORT).has_passed


def test_leaving_early_is_no_pass() -> None:
    for code in ("import os\nos._exit(0)", "raise SystemExit(0)", "import sys\nsys.exit()"):
        assert not run_tests(code, "pass", SHORT).has_passed


def test_the_interpreter_is_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    tests = (
        "import os, sys\n"
        "assert 'SECRET_TOKEN' not in os.environ\n"
        "assert os.listdir('.') == []\n"
        "assert not any('site-packages' in p for p in sys.path)\n"
        "assert sys.stdin is None or sys.stdin.read() == ''"
    )
    assert run_tests("import math, json, re, datetime, random, collections", tests, SHORT).has_passed


def test_the_working_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert run_tests("pass", "pass", SHORT).has_passed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not HAS_FILTER, reason="no system call filter here")
def test_the_outcome_says_that_the_kernel_filters() -> None:
    assert run_tests("pass", "pass", SHORT).is_filtered is True


def test_without_the_filter_the_interpreter_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "filter_program", lambda *_: b"")
    outcome = run_tests("pass", "pass", SHORT)
    assert outcome.has_passed
    assert outcome.is_filtered is False
    for attempt in ("import os\nos.fork()", "import socket\nsocket.socket()", "open('file', 'w')"):
        assert is_refused(attempt)
    assert not run_tests("pass", "pass", SHORT, needs_filter=True).has_passed


def test_no_child_stays() -> None:
    before = children()
    run_tests("import time\ntime.sleep(60)", "pass", SandboxLimits(wall_s=0.2))
    assert children() <= before


def children() -> set[str]:
    """Processes that this one has started, zombies too."""
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}
