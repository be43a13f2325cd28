"""Runs of code and its tests in a process that can do nothing but compute."""

from __future__ import annotations

import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from coe.base.sandbox.syscall_filter import filter_program

_CHILD: Final = Path(__file__).with_name("child.py")
_FILE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Limits of one run.

    Args:
        cpu_s: CPU seconds.
        wall_s: wall-clock seconds, including the start of the interpreter (about 50 ms).
        memory_bytes: address space, of which the interpreter takes about 30 MiB.
    """

    cpu_s: int = 2
    wall_s: float = 6.0
    memory_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True)
class SandboxOutcome:
    """The outcome of one run.

    Args:
        has_passed: the code and every test ran to the end.
        is_filtered: the kernel filter was on; None if the process ended before it reported.
        is_timed_out: the wall clock ended it.
        results: the result of each call, as text.
    """

    has_passed: bool
    is_filtered: bool | None
    is_timed_out: bool
    results: tuple[str, ...] = ()


def run_tests(
    code: str, tests: str, limits: SandboxLimits, calls: Sequence[str] = (), *, needs_filter: bool = False
) -> SandboxOutcome:
    """Run `code`, then `tests` and `calls` in the same namespace, in a new interpreter (`python -I -S -B`).

    Each call is an expression. Its value or exception comes back as text of at most 200 characters. True and 1 give the
    same text; a list and a tuple do not.

    Guarded on every POSIX system: no site-packages, environment variables or inherited files but the verdict file. The
    working folder is empty, temporary and removed afterwards. The session and process group are new, and are killed at
    the end. CPU seconds, wall-clock seconds, open files (32) and bytes per written file (4 KiB) are limited. Users
    other than root can start no process. An audit hook denies Python code sockets, processes, signals, ctypes and
    changes to files.

    Guarded by the kernel on Linux (x86_64, aarch64), also against native code and for root: address space, and a
    seccomp list of allowed calls. It excludes sockets (local ones too), new processes or threads, exec and signals to
    others. It also excludes opening files for writing, and renaming, removing or changing a file, a limit or another
    process.

    With Landlock (Linux 5.13 and newer, unless its administrator left it out) the code can read only the files of
    Python and of libraries.

    Not guarded: without Landlock the code can read any file that this user can read. The caller receives one bit and
    the results of calls; a client may learn whether the results of two experts are equal. The code can search the
    interpreter for the nonce that reports success, so an answer written to cheat this sandbox can fake a pass. It can
    also make values that equal everything. Without the kernel filter, determined code can evade the audit hook. This is
    not a virtual machine: a kernel bug is a way out.

    Args:
        needs_filter: run nothing if the kernel accepts no filter.

    Raises:
        OSError: the interpreter could not be started.
    """
    nonce = secrets.token_hex(16)
    job = {
        "code": code,
        "tests": tests,
        "calls": list(calls),
        "nonce": nonce,
        "parent_pid": os.getpid(),
        "needs_filter": needs_filter,
        "filter": filter_program(sys.platform, platform.machine()).hex(),
        "cpu_s": limits.cpu_s,
        "memory_bytes": limits.memory_bytes,
        "file_bytes": _FILE_BYTES,
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as verdict,
    ):
        given.write(json.dumps(job).encode())
        given.seek(0)
        is_timed_out = _run_child(folder, given, verdict, limits.wall_s)
        verdict.seek(0)
        said = verdict.read(_FILE_BYTES)
    is_filtered = said.startswith(b"K") if said else None
    word, *results = said[1:].decode(errors="replace").split("\n")
    return SandboxOutcome(word == nonce and not is_timed_out, is_filtered, is_timed_out, tuple(results))


def _run_child(folder: str, given: IO[bytes], verdict: IO[bytes], wall_s: float) -> bool:
    """Run the child; return whether it timed out. Files, unlike pipes, never block and have a size limit."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_CHILD)],
        stdin=given,
        stdout=verdict,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    try:
        process.wait(wall_s)
    except subprocess.TimeoutExpired:
        return True
    else:
        return False
    finally:
        with suppress(ProcessLookupError, PermissionError):  # macOS answers the latter for a group of zombies
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
