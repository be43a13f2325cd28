"""Asks to coding agents reach their category, or `general`, as docs/your-experts.md says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.agent_categories import agents_composition, fitted, judged

pytestmark = pytest.mark.slow


def test_fresh_asks_to_agents_are_right_or_stated_unsure(tmp_path: Path) -> None:
    found = judged(fitted(agents_composition(), tmp_path))
    assert not found["wrong"]
    assert len(found["right"]) >= 30
