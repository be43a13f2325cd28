"""A throw-away Postgres with pgvector, from a package."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def running_pgvector() -> Iterator[str]:
    """URL of an empty database. Skips where the package is not installed."""
    pgserver = pytest.importorskip("pgserver", reason="pgserver, a Postgres with pgvector in a wheel, is not installed")
    folder = Path(tempfile.mkdtemp(prefix="coe-pgvector-"))
    server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
