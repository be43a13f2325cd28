"""Entry point of the `coe` script and of `python -m coe`."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Runs the command line.

    The packages of this distribution have common names, so their folder comes first on the path: a `router` or `eval`
    of the user's, beside experts.yaml or on PYTHONPATH, is not taken for ours.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
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
