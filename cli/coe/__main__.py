"""Entry point of the `coe` script and of `python -m coe`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    try:
        from coe.cli.command_line import main as run_command_line

        run_command_line()
    except KeyboardInterrupt:  # Ctrl-C while modules load: what a command does about it itself is not this
        sys.exit(130)
    except BrokenPipeError:  # whoever read the output has left, as in `coe --help | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the end of Python complains as well
        sys.exit(1)


if __name__ == "__main__":
    main()
