"""The program inside the sandbox, started as a script by `runner.run_tests`, without site-packages or environment.

Standard input is a JSON object: code, tests, calls, nonce, filter (hex) and limits. Standard output is a regular file.
It gets one byte before the code runs: "K" if the kernel filter is on, "-" if not. After the tests pass it gets the
nonce, and a line with the result of each call. An exception of the code ends the interpreter earlier, so no handler is
needed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # of Landlock, with these numbers on every processor
_RULE_PATH_BENEATH = 1
_READ_FILE_OR_FOLDER = 1 << 2 | 1 << 3

_DENIED_EVENTS = (
    *("socket.", "subprocess.", "ctypes.", "shutil.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn"),
    *("os.kill", "pty.", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr", "signal.pthread_kill", "tempfile."),
)
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _FilterProgram(ctypes.Structure):
    """The C type `struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


class _PathBeneath(ctypes.Structure):
    """The C type `struct landlock_path_beneath_attr` of linux/landlock.h."""

    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def limit(kind: int, soft: int, hard: int) -> None:
    """Set a resource limit, at most the current hard limit."""
    ceiling = resource.getrlimit(kind)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(kind, (soft, hard))


def _set_limits(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    limit(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)
    limit(resource.RLIMIT_FSIZE, file_bytes, file_bytes)
    limit(resource.RLIMIT_NPROC, 0, 0)
    limit(resource.RLIMIT_NOFILE, 32, 32)
    limit(resource.RLIMIT_CORE, 0, 0)
    if sys.platform == "linux":  # elsewhere an address space limit is refused
        limit(resource.RLIMIT_AS, memory_bytes, memory_bytes)


def _filter_system_calls(program: bytes) -> bool:
    """Install the filter for the rest of the process. Return whether the kernel accepted it."""
    if not program:
        return False
    libc = ctypes.CDLL(None)
    argument = _FilterProgram(len(program) // 8, program)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    _close_files(libc)
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(argument), 0, 0) == 0)


def _close_files(libc: ctypes.CDLL) -> None:
    """Restrict reading to Python's files and libraries, if the kernel has Landlock (Linux 5.13 and newer)."""
    reading = ctypes.c_uint64(_READ_FILE_OR_FOLDER)
    rules = libc.syscall(_CREATE_RULESET, ctypes.byref(reading), ctypes.sizeof(reading), 0)
    if rules < 0:
        return
    for place in (f"{sys.base_prefix}/lib", f"{sys.base_prefix}/{sys.platlibdir}", "/usr/lib", "/lib", "/lib64", "."):
        try:
            folder = os.open(place, os.O_RDONLY)
        except OSError:
            continue  # it is not there
        libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, ctypes.byref(_PathBeneath(reading, folder)), 0)
        os.close(folder)
    libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def die_with(parent_pid: int) -> None:
    """Ask the kernel for SIGKILL at the parent's death, on Linux only: sleeping code would reach no CPU limit."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            os._exit(1)


def _guard_interpreter() -> None:
    """Add an audit hook, which cannot be removed. It is the second guard, and the only one without a kernel filter."""
    denied, write_flags = _DENIED_EVENTS, _WRITE_FLAGS

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        flags = arguments[2] if event == "open" else 0
        if event.startswith(denied) or (isinstance(flags, int) and flags & write_flags):
            raise PermissionError(f"{event} is not allowed here")

    sys.addaudithook(refuse)


def _result(call: str, namespace: dict[str, object]) -> str:
    """Return the value of a call as text, or the name of the exception that it raises."""
    try:
        return _shown(eval(call, namespace))  # noqa: S307
    except Exception as error:  # noqa: BLE001
        return f"raises {type(error).__name__}"


def _shown(value: object) -> str:
    """Return a value as text; equal values of plain types have equal texts."""
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{_shown(key)}: {_shown(part)}" for key, part in value.items())) + "}"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(_shown(part) for part in value)) + "}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}({', '.join(_shown(part) for part in value)})"
    return f"{float(value):.9g}" if isinstance(value, (int, float)) and abs(value) < 1e15 else repr(value)


def main() -> None:
    """Read the job, apply the guards, run the code, then the tests and the calls."""
    job = json.load(sys.stdin)
    die_with(job["parent_pid"])
    verdict = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    _set_limits(job["cpu_s"], job["memory_bytes"], job["file_bytes"])
    is_filtered = _filter_system_calls(bytes.fromhex(job["filter"]))
    _guard_interpreter()
    os.write(verdict, b"K" if is_filtered else b"-")
    if job["needs_filter"] and not is_filtered:
        os._exit(0)
    namespace: dict[str, object] = {"__name__": "answer"}
    exec(compile(job["code"], "answer", "exec"), namespace)  # noqa: S102 - running it is what the sandbox is for
    exec(compile(job["tests"], "tests", "exec"), namespace)  # noqa: S102
    results = "".join(f"\n{_result(call, namespace)[:200]!r}" for call in job["calls"])
    os.write(verdict, (job["nonce"] + results).encode("ascii", "backslashreplace"))
    os._exit(0)


if __name__ == "__main__":
    main()
