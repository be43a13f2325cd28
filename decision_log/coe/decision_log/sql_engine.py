"""Access to the database: supported databases, SQLite's settings, and the translation of errors."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from coe.base.errors import ConfigError, DataError, StoreError
from coe.base.extras import require_installed

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

BUSY_TIMEOUT_MS = 10_000
AGAIN_S = 0.01
PRIMARY_CODE = 0xFF  # of SQLite's codes, which say more in their other bits
KEPT_STATEMENTS = 8
"""Compiled statements per SQLite connection. With Python's default of 128, batches of all sizes took 40 MB."""

ROWS_AT_ONCE = 64
"""Rows of one statement. SQLite would have to compile a new statement for a batch of several hundred rows."""

POSTGRES_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""Parameters of libpq that end a wait on a dead network after about 25 s; Linux alone takes 16 minutes to two hours."""

T = TypeVar("T")

GIVEN_AS = "the database URL (DATABASE_URL)"
FORMS = {"sqlite": "sqlite:///FILE", "postgresql": "postgresql://USER@HOST/DATABASE"}


def open_engine(database_url: str) -> Engine:
    """Return a connection pool for a URL; SQLite gets a write-ahead log, so that readers do not wait for the writer.

    Raises:
        ConfigError: not a URL, or an unsupported database.
        MissingExtraError: the driver of Postgres is not installed.
    """
    url = checked_url(database_url)
    if url.get_backend_name() == "postgresql":
        require_installed("the database URL of Postgres", "psycopg")
        return postgres_engine(url)
    path = Path(url.database or "")
    # For its owner alone, and so is its write-ahead log, which gets the same mode. SQLite says what cannot be opened.
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "cached_statements": KEPT_STATEMENTS})

    @event.listens_for(engine, "connect")
    def set_pragmas(connection: Any, _record: object) -> None:
        # FULL: a row is committed before the stream forgets it, so the commit must outlive a power cut.
        # secure_delete: what is erased is overwritten.
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}").close()
        write_ahead(connection)

    return engine


def postgres_engine(url: URL) -> Engine:
    """Return a connection pool; network timeouts in the URL override the defaults."""
    return create_engine(url.set(query={**POSTGRES_PATIENCE, **url.query}), pool_pre_ping=True)


def write_ahead(connection: Any) -> None:
    """Turn on SQLite's write-ahead log, with retries: it fails at once if several processes do so on a new file."""
    until_s = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() >= until_s:
                raise
            time.sleep(AGAIN_S)


def in_parts(rows: Sequence[T], count: int = ROWS_AT_ONCE) -> Iterator[Sequence[T]]:
    """Split rows into parts of at most `count`, one per statement."""
    return (rows[start : start + count] for start in range(0, len(rows), count))


def close_engine(engine: Engine) -> None:
    """Close every connection: an idle one now, one in use when its thread returns it."""
    event.listen(engine, "checkin", lambda connection, _record: connection and connection.close())
    engine.dispose()


def checked_url(database_url: str, given_as: str = GIVEN_AS, backends: Mapping[str, str] = FORMS) -> URL:
    """Return the URL with this project's driver. Messages never show the URL, which may have a password.

    Args:
        given_as: name of the setting in messages.
        backends: supported databases, with the form of their URLs.

    Raises:
        ConfigError: not a URL, or an unsupported database.
    """
    allowed = f"allowed: {', '.join(backends.values())}"
    try:
        url = make_url(database_url)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        backend = url.get_backend_name()
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise ConfigError(f"{given_as} is not a database URL; {allowed}") from error
    if backend not in backends:
        raise ConfigError(f"{given_as} is of database '{backend}'; {allowed}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise ConfigError(f"{given_as} is an SQLite database in memory, which a restart would lose; {allowed}")
    return url


def hold(connection: Connection, *numbers: int, is_shared: bool = False) -> None:
    """Take a lock until the transaction ends, so that writers that read first wait for each other.

    Args:
        numbers: one or two that name the lock on Postgres; SQLite has one for all writers.
        is_shared: other shared holders are allowed.
    """
    if connection.dialect.name != "sqlite":
        shared = "_shared" if is_shared else ""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock{shared}({', '.join(map(str, numbers))})")
    elif not getattr(connection.connection.driver_connection, "in_transaction", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def open_log(database_url: str) -> Iterator[Connection]:
    """Open a connection for reading the decision log.

    Raises:
        ConfigError, MissingExtraError: as in `open_engine`.
        DataError: there is no such file.
        StoreError: the database cannot be read.
    """
    url = checked_url(database_url)
    path = Path(url.database or "")
    if url.get_backend_name() != "sqlite":
        engine = open_engine(database_url)
    elif path.is_file():
        engine = create_engine(url)  # as it is: the file may be somebody else's
    else:
        raise DataError(f"{path}: there is no decision log; it begins with the first `coe up` or `coe serve`")
    try:
        with translated_errors("read the decision log in"), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def translated_errors(action: str, where: str = "the database") -> Iterator[None]:
    """Turn a database error into a StoreError without the statement, whose parameters have users' text.

    Args:
        action: what was done, up to `where`: "open", "count in".
    """
    try:
        yield
    except OverflowError as error:  # SQLite's driver, which raises it as it is
        raise StoreError(f"cannot {action} {where}: a number is too large for it") from error
    except DBAPIError as error:
        is_retryable = isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated
        reason = str(error.orig).strip().split("\n", maxsplit=1)[0]
        raise StoreError(f"cannot {action} {where}: {reason}", is_retryable=is_retryable) from error
