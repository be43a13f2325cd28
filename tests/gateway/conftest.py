"""For every gateway of the tests: patience with a busy machine; and the plainest two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.gateway.retrieval.serving import Serving, serving
from tests.gateway.running import Running, running
from tests.waiting import DEADLINE_S

PATIENCES = (
    "coe.fleet.providers.vllm.PROBE_TIMEOUT_S",
    "coe.gateway.answer_cache.TIMEOUT_S",
    "coe.gateway.chat.conversations.TIMEOUT_S",
    "coe.gateway.http.admission.PATIENCE_S",
    "coe.gateway.keys.limits.TIMEOUT_S",
)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it goes on without Redis, an engine, a disk or a body where that is away, and not where it is slow."""
    for name in PATIENCES:
        monkeypatch.setattr(name, DEADLINE_S)


@pytest.fixture
async def gateway() -> AsyncIterator[Running]:
    """One over echoes."""
    async with running() as it:
        yield it


@pytest.fixture(name="running")
async def retrieving(tmp_path: Path) -> AsyncIterator[Serving]:
    """One that serves retrieval, too."""
    async with serving(tmp_path) as it:
        yield it
