"""For every test: a real Redis-protocol server, and what the extra of training needs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from importlib.util import find_spec

import pytest

from gateway.fleet.redis_server import RedisServer


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Skips tests marked `torch` where the extra that they train with is not installed."""
    missing = [name for name in ("torch", "sentence_transformers", "peft") if find_spec(name) is None]
    if missing:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason=f"needs the 'retrieval' extra: {', '.join(missing)}"))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole session; a test that kills or stops its server starts one of its own."""
    server = RedisServer(tmp_path_factory.mktemp("valkey"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture
def redis_url(valkey: RedisServer) -> str:
    """Address of that server, emptied."""
    from redis import Redis

    with Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url
