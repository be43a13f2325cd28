"""For every test: its layer, a real Redis-protocol server, and what the extra of training needs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

if find_spec("coe_offline") is None:
    raise pytest.UsageError(
        "tests need examples/offline: `make test` installs it, or .venv/bin/python -m pip install --no-deps "
        "--no-build-isolation -e . -e examples/offline"
    )

from coe.decision_log.database import Database
from coe_offline.redis_server import RedisServer
from tests.layers import UnitGuard, group_of, layer_of
from tests.postgres import running_postgres

settings.register_profile("coe", deadline=None, max_examples=50)  # no timed assertions: the machine may be busy
settings.load_profile("coe")

for name in [*os.environ]:  # neither tests nor what they start see what is set where they run
    ours = ("COE_", "COLUMNS", "DATABASE_URL", "FORCE_COLOR", "NO_COLOR", "OTEL_", "REDIS_URL")
    if name.startswith(ours) and not name.startswith("COE_TEST_"):
        del os.environ[name]
os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost")

SLOW_TIMEOUT_S = 1800.0
"""Of a slow test that names none: it ends a test that hangs, not one on a busy machine."""


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(UnitGuard(), "unit-guard")


@pytest.hookimpl(tryfirst=True)  # before -m selects by the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no worker waits for one at the end, marks each test with its layer, gives
    slow tests their time, and skips tests marked `torch` where the extra that they train with is not installed."""
    items.sort(key=lambda item: not {"e2e", "training"} & set(item.path.parts))
    for item in items:
        item.add_marker(layer_of(item))
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
    missing = [name for name in ("torch", "sentence_transformers", "peft") if find_spec(name) is None]
    if missing:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason=f"needs the 'retrieval' extra: {', '.join(missing)}"))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for the whole session; a test that kills or stops its server starts one of its own."""
    server = RedisServer(tmp_path_factory.mktemp("valkey"))
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture
def redis_url(valkey: RedisServer) -> str:
    """Address of that server, emptied."""
    from redis import Redis

    with Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a database that the tests of a session share."""
    with running_postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """URL of that database, emptied."""
    import psycopg

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO public")
    return postgres


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs what asks for a database on both kinds, or on those that the file names as `DATABASES`."""
    if "database_url" in metafunc.fixturenames:
        kinds = getattr(metafunc.module, "DATABASES", ("sqlite", "postgres"))
        metafunc.parametrize("database_url", kinds, indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'coe.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()
