"""An interpreter whose vLLM is the fake: for `vllm.python`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fake_interpreter(folder: Path) -> str:
    """Path of a script in `folder` that runs the fake for `-m vllm.entrypoints.openai.api_server ...`."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "python-with-fake-vllm"
    script.write_text(f'#!/bin/sh\nshift 2\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m tests.fake_vllm "$@"\n')
    script.chmod(0o755)
    return str(script)
