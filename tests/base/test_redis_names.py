"""Names in Redis are in one place."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("base", "cli", "decision_log", "eval", "fleet", "gateway", "retrieval", "router", "training")


def test_no_other_module_makes_a_name_of_its_own() -> None:
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py") if file.name != "redis_names.py"]
    assert len(files) > 400
    strings = [
        (str(file), node.value)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert [each for each in strings if re.match(r"\{?coe\}?:\S|:dead$", each[1])] == []
