"""Without REDIS_URL the server of an installed plugin; without one, a sentence that says what to do."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from coe.base.errors import EngineError
from coe.fleet.processes.own_redis import running_url
from coe.gateway.lifecycle.composition import start_redis
from coe.gateway.settings import environment_settings


async def test_a_gateway_starts_the_plugins_server_and_stops_it(tmp_path: Path) -> None:
    folder = tmp_path / "redis"
    async with AsyncExitStack() as stack:
        url, words = await start_redis(stack, environment_settings({"COE_DATA_DIR": str(tmp_path)}))
        assert words == f"embedded Redis in {folder}"
        assert running_url(folder) == url
    assert running_url(folder) is None
    assert (folder / "appendonlydir").is_dir()


async def test_without_a_plugin_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coe.fleet.processes.own_redis.installed_modules", lambda family: {})
    assert running_url(tmp_path) is None
    with pytest.raises(EngineError, match=r"^REDIS_URL is not set: name a Redis or Valkey .* or install coe-offline"):
        await start_redis(AsyncExitStack(), environment_settings({"COE_DATA_DIR": str(tmp_path)}))
