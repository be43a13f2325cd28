"""For every gateway of the tests: patience with a busy machine."""

from __future__ import annotations

import pytest

from tests.waiting import DEADLINE_S

PATIENCES = (
    "decision_log.commit_check.LOOK_TIMEOUT_S",
    "fleet.wires.vllm.PROBE_TIMEOUT_S",
    "gateway.answer_cache.TIMEOUT_S",
    "gateway.conversations.TIMEOUT_S",
    "gateway.keys.limits.TIMEOUT_S",
    "gateway.live_router.MAX_WAIT_S",
    "gateway.residency_board.TIMEOUT_S",
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it goes on without Redis, an engine or a disk where that is away, and not where it is slow."""
    for name in PATIENCES:
        monkeypatch.setattr(name, DEADLINE_S)
