"""Why vLLM did not start, read from its log: the cause stands far above the last lines, which name none."""

from __future__ import annotations

import re
from pathlib import Path

import yaml


def cause_in(log: str) -> str | None:
    """The repair of the first cause in faults.yaml that the log names; None where it names none."""
    for cause in yaml.safe_load(Path(__file__).with_name("faults.yaml").read_text(encoding="utf-8")):
        if (found := re.search("|".join(cause["log"]), log)) is not None:
            repair: str = cause["repair"]
            return repair.format(**{name: value or "fewer" for name, value in found.groupdict().items()})
    return None
