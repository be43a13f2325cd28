"""The commands `coe db upgrade` and `coe db check`."""

from __future__ import annotations

from pathlib import Path

from coe.cli.options import DataOption
from coe.decision_log.connections import opened_database
from coe.decision_log.default_database import database_url_of
from coe.decision_log.schema import HEAD, differences
from coe.decision_log.sql_engine import open_log


def upgrade(data_dir: DataOption = Path("data")) -> None:
    """Bring the database to the schema of this version, as `coe up` and `coe serve` do when they start."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    with working("upgrading the database ..."), opened_database(data_dir):
        pass
    Terminal().print(f"the database has schema {HEAD}")


def check(data_dir: DataOption = Path("data")) -> int:
    """Compare the database with the schema of this version, and change nothing; exit status 1 if they differ."""
    from coe.cli.progress import working
    from coe.cli.terminal import Terminal

    with working("comparing the database ..."), open_log(database_url_of(data_dir)) as connection:
        found = differences(connection)
    console = Terminal(soft_wrap=True)
    for line in found:
        console.print(line)
    console.print("run `coe db upgrade`" if found else f"the database has schema {HEAD}, as this version of coe")
    return int(bool(found))
