"""`coe log migrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from base.options import DatabaseOption, DataOption


def migrate(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="an empty database: postgresql://USER@HOST/NAME")],
    data_dir: DataOption = Path("data"),
    database_url: DatabaseOption = None,
) -> None:
    """Copy the whole database into an empty one: decisions, feedback, keys, files, vector stores. Stop the gateways
    first."""
    from base.errors import StoreError
    from base.progress import console_progress
    from base.visible_text import echo
    from decision_log import admin_log, tables
    from decision_log.copy_database import copy_database
    from decision_log.default_database import default_database_url
    from decision_log.leftovers import spool_folders
    from decision_log.sink import SPOOL_FOLDER
    from fleet.folder_lock import is_held
    from gateway.batches import batch_store as batches
    from gateway.keys import key_store as keys
    from retrieval.stores import tables as stores

    if any(is_held(spool) for spool in spool_folders(data_dir / SPOOL_FOLDER)):
        raise StoreError(f"a gateway runs on {data_dir}; stop it, so that nothing is written meanwhile")
    every = [*tables.TABLES, admin_log.ADMIN_LOG, *keys.TABLES, *batches.TABLES, *stores.TABLES]
    with console_progress() as progress:
        copied = copy_database(database_url or default_database_url(data_dir), to, every, progress)
    for name, rows in copied.items():
        if rows:
            echo(f"{name}: {rows} rows")
    echo("Copied. Set DATABASE_URL to the new database and start the gateway; `coe log doctor` counts what arrived.")
