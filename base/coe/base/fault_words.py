"""Messages for pydantic's faults, for users. Pydantic's own ("String should match pattern ...") address programmers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coe.base.errors import allowed_values

TABLES: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_name("fault_words.toml").read_text(encoding="utf-8")
)
WORDS, PATTERNS = TABLES["types"], TABLES["patterns"]
CHOICES = ("enum", "literal_error")


def fault_words(fault: Mapping[str, Any]) -> str:
    """Describe a fault of a value without showing the value."""
    kind, context = fault["type"], fault.get("ctx", {})
    if kind in CHOICES:
        allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return f"unknown value{allowed_values(str(fault['input']), allowed)}"
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"must match the pattern {context['pattern']}")
    numbers = {name: f"{value:.12g}" if isinstance(value, float) else value for name, value in context.items()}
    return WORDS.get(kind, "is not a value that is allowed here").format(**numbers)
