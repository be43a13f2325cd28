from __future__ import annotations

import pytest


@pytest.fixture
def command_environment(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command finds Redis, and has a wide terminal."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("COLUMNS", "200")
