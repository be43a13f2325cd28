"""Fixtures for every test: a real Redis-protocol server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gateway.fleet.redis_server import RedisServer


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
