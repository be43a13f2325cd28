"""The versions of the decision log's tables and rows that this program reads, and a
connection for reading it, whose errors never show a statement or a password."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchTableError

from base.errors import DataError, MissingExtraError
from base.json_text import JsonError, from_json
from router.types import RECORD_VERSION

SCHEMA_VERSION = 1
"""Of the tables. A change that older or newer programs could not read raises it."""

SCHEMA_TABLE = "coe_schema"


def schema_problem(connection: Connection, tables: Sequence[str] = ("decisions",)) -> str | None:
    """Reason why this program must not touch the database, in words that follow "the database"; None when it may.

    Args:
        tables: names that show it is in use where it has no version.
    """
    present = set(inspect(connection).get_table_names())
    if SCHEMA_TABLE not in present:
        ours = sorted(present & set(tables))
        if not ours:
            return None
        return (
            f"has a table '{ours[0]}' and no schema version, so this coe did not make it; allowed: schema version "
            f"{SCHEMA_VERSION}, or a database without such tables (move this one away, or name another)"
        )
    version = connection.execute(text(f"SELECT MAX(version) FROM {SCHEMA_TABLE}")).scalar_one()
    if version == SCHEMA_VERSION:
        return None
    age, advice = ("a newer", "upgrade coe") if (version or 0) > SCHEMA_VERSION else ("an older", "use that coe for it")
    return f"is of schema version {version}, of {age} coe; this one takes version {SCHEMA_VERSION}: {advice}"


def foreign_version(record: str | bytes) -> str | None:
    """The `schema_version` of a decision record that is not this program's; None of one that is, or is damaged."""
    try:
        values = from_json(record)
    except JsonError:
        return None
    version = values.get("schema_version", RECORD_VERSION) if isinstance(values, dict) else RECORD_VERSION
    return None if version == RECORD_VERSION else str(version)[:20]


def version_reason(version: str) -> str:
    """Reason why such a row is left out."""
    return f"rows of schema_version {version}; this coe reads {RECORD_VERSION}"


@contextmanager
def open_log(database_url: str) -> Iterator[Connection]:
    """A connection for reading.

    Raises:
        DataError: it is not a database URL, the database cannot be reached, there is no such file, or it holds no such
            tables or those of another schema version.
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
            "that is not a URL of a supported database; allowed: sqlite:///FILE, postgresql://USER@HOST/DATABASE"
        ) from error
    except ModuleNotFoundError as error:
        raise MissingExtraError("a decision log in Postgres", "postgres") from error
    try:
        with engine.connect() as connection:
            if (problem := schema_problem(connection)) is not None:
                raise DataError(f"{url.render_as_string()}: the database {problem}")
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
