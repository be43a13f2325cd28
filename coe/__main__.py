"""Entry point of the `coe` script and of `python -m coe`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Runs the command line.

    The packages of this distribution have common names, so their folder comes first on the path: a `router` or `eval`
    of the user's, beside experts.yaml or on PYTHONPATH, is not taken for ours.
    """
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from coe.command_line import main as run_command_line

    run_command_line()


if __name__ == "__main__":
    main()
