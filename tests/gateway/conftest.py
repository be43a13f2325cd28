"""A throw-away Postgres where its programs are installed, and a store on either database."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.store import Store


def postgres_account() -> str:
    """Who may run Postgres, which refuses root. Skips the test when root finds no such account."""
    if os.geteuid() != 0:
        return getpass.getuser()
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("Postgres does not run as root and there is no account 'postgres'")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of an empty database, reached through a socket in a folder of its own."""
    initdb, server = shutil.which("initdb"), shutil.which("pg_ctl")
    if initdb is None or server is None:
        pytest.skip("Postgres is not installed (initdb, pg_ctl)")
    account = postgres_account()
    as_user = {"user": account} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="coe-pg-"))
    if as_user:
        shutil.chown(folder, account)
    data, log = folder / "data", folder / "log"
    options = f"-k {folder} -c listen_addresses='' -c fsync=off"
    start = [server, "-D", str(data), "-l", str(log), "-o", options, "-w", "start"]
    make = [initdb, "-D", str(data), "-A", "trust", "-U", "coe", "--no-sync"]
    try:
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **as_user)
        subprocess.run(start, check=True, stdout=subprocess.DEVNULL, cwd=folder, **as_user)
        yield f"postgresql://coe@/postgres?host={folder}"
    finally:
        stop = [server, "-D", str(data), "-m", "immediate", "-w", "stop"]
        subprocess.run(stop, check=False, capture_output=True, cwd=folder, **as_user)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'coe.db'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = Store(database_url)
    with opened._engine.begin() as connection:
        for table in ("decisions", "feedback", "implicit_signals"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    yield opened
    opened.close()
