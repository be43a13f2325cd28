"""A launcher that ties a command to the life of its parent, then becomes that command.

    python -I -S parent_death.py PARENT_PID COMMAND ARGUMENT...

On Linux the kernel sends SIGTERM when the parent dies, for any reason; elsewhere the launcher only runs the command. It
is a file of its own, run by path, because code between fork and exec is unsafe in a process with threads. It uses only
the standard library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
COMMAND_NOT_FOUND = 127  # as a shell says it


def tie_to_parent(parent_pid: int) -> None:
    """Ask the kernel for SIGTERM at the parent's death; exit if the parent has died already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent_pid:
            sys.exit(1)


def dying_with_parent(*argv: str) -> tuple[str, ...]:
    """Return a command line that ends with this process; start it from a thread that lives as long as the command."""
    return (sys.executable, "-I", "-S", __file__, str(os.getpid()), *argv)


def coe_words(*arguments: str) -> tuple[str, ...]:
    """Return the command line of `coe ARGUMENTS` with this interpreter, without the working directory on the path."""
    return sys.executable, "-P", "-m", "coe", *arguments


def main(arguments: list[str]) -> int:
    parent_pid, *command = arguments
    tie_to_parent(int(parent_pid))
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"cannot run {command[0]}: {error.strerror}\n")
    return COMMAND_NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
