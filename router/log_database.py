"""Where the decision log's database is by default, and a connection for reading it, whose errors never show a statement
or a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchTableError

from router.errors import DataError, MissingExtraError


def default_database_url(data_dir: Path) -> str:
    """The SQLite database of a data folder, whose name may hold what has a meaning in a URL."""
    return str(URL.create("sqlite", database=str(data_dir / "coe.db")))


@contextmanager
def open_log(database_url: str) -> Iterator[Connection]:
    """A connection for reading.

    Raises:
        DataError: it is no database URL, the database cannot be reached, there is no such file, or it holds no such
            tables.
        MissingExtraError: it is one of Postgres, whose driver is not installed.
    """
    try:
        url = make_url(database_url)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError(f"database '{url.get_backend_name()}' is not supported")
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise DataError(
                f"{url.database}: there is no decision log; it begins with the first `coe up` or `coe serve`"
            )
        engine = create_engine(url)
    except (ArgumentError, ValueError) as error:
        raise DataError(
            "that is no URL of a supported database; allowed: sqlite:///FILE, postgresql://USER@HOST/DATABASE"
        ) from error
    except ModuleNotFoundError as error:
        raise MissingExtraError("a decision log in Postgres", "postgres") from error
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        reason = str(error.orig).strip().split("\n", maxsplit=1)[0]
        raise DataError(f"the decision log cannot be read from {url.render_as_string()}: {reason}") from error
    except NoSuchTableError as error:
        raise DataError(
            f"the decision log cannot be read from {url.render_as_string()}: no such table: {error}"
        ) from error
    finally:
        engine.dispose()
