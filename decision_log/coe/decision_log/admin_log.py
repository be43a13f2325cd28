"""The log of what admins did: to keys, to the configuration, to routers. Lines are only added, and each has the hash of
itself and the line before, so that an edit shows."""

from __future__ import annotations

import getpass
import hashlib
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, insert, select
from sqlmodel import col

from coe.base.errors import StoreError
from coe.base.json_text import to_json
from coe.decision_log.connections import opened_database
from coe.decision_log.database import Database
from coe.decision_log.sql_engine import hold
from coe.decision_log.tables.access import AdminLogRow

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

LOCK_NUMBER = 0x636F6561  # "coea", for Postgres's advisory locks


class AdminAction(NamedTuple):
    """A line of the log. `before` and `after` say what the subject was: of a key or a team the hash of its row, of
    others a number or a version; '' where there was none."""

    number: int
    at: float
    actor: str
    action: str
    subject: str
    before: str
    after: str
    link: str


class AdminLog:
    """Calls block. All raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, actor: str, action: str, subject: str, before: str, after: str) -> None:
        """Adds a line for what was done elsewhere; the error says that it was done."""
        try:
            with self._database.transaction("write to the admin log") as connection:
                hold_log(connection)
                add_line(connection, (actor, action, subject, before, after))
        except StoreError as error:
            raise StoreError(f"this was done, but the admin log does not have it: {error}") from error

    def actions(self) -> list[AdminAction]:
        """All lines, oldest first."""
        with self._database.transaction("read the admin log") as connection:
            rows = connection.execute(select(AdminLogRow).order_by(col(AdminLogRow.number)))
            return [AdminAction(**row._mapping) for row in rows]


def note_command(data_dir: Path, action: str, subject: str, before: str, after: str) -> None:
    """Adds a line for what a command did, by whoever runs it. Raises StoreError."""
    with opened_database(data_dir) as database:
        AdminLog(database).note(operator(), action, subject, before, after)


def operator() -> str:
    """User and host that a command runs as, for what is written down about changes."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def hold_log(connection: Connection) -> None:
    """Keeps others from adding lines until the transaction ends. Whoever will add one calls it first."""
    hold(connection, LOCK_NUMBER)


def add_line(connection: Connection, action: tuple[str, str, str, str, str]) -> None:
    """Adds the line (actor, action, subject, before, after), under `hold_log`."""
    number = newest(connection) + 1
    line = (number, time.time(), *action)
    last = select(col(AdminLogRow.link)).where(col(AdminLogRow.number) == number - 1)
    link = link_of(connection.execute(last).scalar_one_or_none() or "", line)
    connection.execute(insert(AdminLogRow).values((*line, link)))


def newest(connection: Connection) -> int:
    """The number of the last line; 0 where there is none."""
    return int(connection.execute(select(func.coalesce(func.max(col(AdminLogRow.number)), 0))).scalar_one())


def link_of(before: str, line: tuple[object, ...]) -> str:
    """The hash that ties a line to the one before it."""
    return hashlib.sha256(before.encode() + to_json(line)).hexdigest()


def first_broken(actions: Sequence[AdminAction]) -> int | None:
    """The number of the first line that is not as it was written, or is missing; None when all are there."""
    link = ""
    for number, each in enumerate(actions, start=1):
        if each.number != number or each.link != link_of(link, each[:-1]):
            return number
        link = each.link
    return None
