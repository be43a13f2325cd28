"""An interpreter whose vLLM is the fake: for `vllm.python`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fake_interpreter(folder: Path) -> str:
    """Path of a script in `folder` that runs the fake for `-m vllm.entrypoints.cli.main serve ...`. With `-c` it
    holds as many GiB of the first GPU of `folder/card` as the program's argument says, until its input ends."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "python-with-fake-vllm"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then echo "$3" > "{folder}/card/0.$$"; echo held; exec cat; fi\n'
        f'shift 2\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m tests.fake_vllm "$@"\n'
    )
    script.chmod(0o755)
    return str(script)
