"""A throw-away Postgres with pgvector, from a package: nothing of the system's is needed, root or not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def running_postgres() -> Iterator[str]:
    """URL of an empty database, reached through a socket, as its superuser `coe`. Skips on Windows, where the package
    is not installed."""
    pgserver = pytest.importorskip("pgserver", reason="pgserver, a Postgres with pgvector in a wheel, is not installed")
    folder = Path(tempfile.mkdtemp(prefix="coe-pg-"))
    server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf(); CREATE ROLE coe SUPERUSER LOGIN;")
        yield server.get_uri().replace("//postgres:@", "//coe@")
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
