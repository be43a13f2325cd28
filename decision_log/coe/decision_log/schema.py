"""The version of the database's schema: detection, upgrade by Alembic, and comparison with the tables.

A migration and its version are one transaction under a lock. An interrupted one leaves the database unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from coe.base.errors import StoreError
from coe.decision_log.sql_engine import hold
from coe.decision_log.tables import METADATA

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection, Engine

HEAD = "0001"
"""The newest version: the last migration in `FOLDER`. A test compares both, so that no start has to load Alembic."""

FOLDER = Path(__file__).with_name("migrations")
LOCK_NUMBER = 0x636F6573  # "coes", for Postgres's advisory locks
VERSION_TABLE = "alembic_version"


def upgrade(engine: Engine) -> None:
    """Bring a database to the newest version. Processes that start at once wait for each other.

    Raises:
        StoreError: a newer version of coe wrote the database.
    """
    with engine.connect() as connection:
        if version_of(connection) == HEAD:
            return
    with engine.begin() as connection:
        hold(connection, LOCK_NUMBER)
        migrate(connection)


def migrate(connection: Connection) -> None:
    """Run the missing migrations in the transaction of a connection."""
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    version = version_of(connection)
    if version is not None and version not in known:
        raise StoreError(
            f"the database has schema {version}, which is newer than schema {HEAD} of this version of coe; "
            "start the version of coe that wrote it, or a later one"
        )
    command.upgrade(config, "head")


def version_of(connection: Connection) -> str | None:
    """Return the version of the schema; None if the database is empty or older than Alembic's history."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version: str | None = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar_one_or_none()
    return version


def differences(connection: Connection) -> list[str]:
    """Return how the database differs from the newest schema, one line each. Foreign tables are ignored."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def is_ours(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "table" or name in METADATA.tables

    version = version_of(connection)
    found = [] if version == HEAD else [f"it has schema {version or 'of before 0001'}, and this coe has {HEAD}"]
    context = MigrationContext.configure(connection, opts={"include_name": is_ours, "compare_type": True})
    return found + [describe(change) for change in compare_metadata(context, METADATA)]


def describe(change: Any) -> str:
    """Return a line for one change that would make the database equal to the tables."""
    if isinstance(change, list):  # changes of one column
        return "; ".join(map(describe, change))
    action, *parts = change
    names = [str(getattr(part, "name", part)) for part in parts if part is not None and not isinstance(part, dict)]
    return " ".join([action.replace("_", " "), *names])


def alembic_config(connection: Connection) -> Config:
    """Return the configuration with which Alembic finds the migrations and uses this connection."""
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config
