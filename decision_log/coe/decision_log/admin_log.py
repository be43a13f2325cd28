"""The append-only log of what admins did. Each line has a hash of itself and the line before, which reveals edits."""

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
    """A line of the log.

    `before` and `after` describe the subject: the hash of its row for a key or a team, else a number or a version. They
    are '' if there was none.
    """

    number: int
    at: float
    actor: str
    action: str
    subject: str
    before: str
    after: str
    link: str


class AdminLog:
    """The admin log in a database. Methods block, and raise StoreError if the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, actor: str, action: str, subject: str, before: str, after: str) -> None:
        """Append a line for a change made elsewhere; the error says that the change itself was made."""
        try:
            with self._database.transaction("write to the admin log") as connection:
                hold_log(connection)
                add_line(connection, (actor, action, subject, before, after))
        except StoreError as error:
            raise StoreError(f"this was done, but the admin log does not have it: {error}") from error

    def actions(self) -> list[AdminAction]:
        """Return all lines, oldest first."""
        with self._database.transaction("read the admin log") as connection:
            rows = connection.execute(select(AdminLogRow).order_by(col(AdminLogRow.number)))
            return [AdminAction(**row._mapping) for row in rows]


def note_command(data_dir: Path, action: str, subject: str, before: str, after: str) -> None:
    """Append a line for a command of the current user; may raise StoreError."""
    with opened_database(data_dir) as database:
        AdminLog(database).note(operator(), action, subject, before, after)


def operator() -> str:
    """Return the user and host that a command runs as, for records of changes."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def hold_log(connection: Connection) -> None:
    """Lock the log until the transaction ends. Call it before `add_line`."""
    hold(connection, LOCK_NUMBER)


def add_line(connection: Connection, action: tuple[str, str, str, str, str]) -> None:
    """Append the line (actor, action, subject, before, after), under `hold_log`."""
    number = newest(connection) + 1
    line = (number, time.time(), *action)
    last = select(col(AdminLogRow.link)).where(col(AdminLogRow.number) == number - 1)
    link = link_of(connection.execute(last).scalar_one_or_none() or "", line)
    connection.execute(insert(AdminLogRow).values((*line, link)))


def newest(connection: Connection) -> int:
    """Return the number of the last line; 0 if there is none."""
    return int(connection.execute(select(func.coalesce(func.max(col(AdminLogRow.number)), 0))).scalar_one())


def link_of(before: str, line: tuple[object, ...]) -> str:
    """Return the hash that ties a line to the one before it."""
    return hashlib.sha256(before.encode() + to_json(line)).hexdigest()


def first_broken(actions: Sequence[AdminAction]) -> int | None:
    """Return the number of the first line that was changed or is missing; None if all lines are intact."""
    link = ""
    for number, each in enumerate(actions, start=1):
        if each.number != number or each.link != link_of(link, each[:-1]):
            return number
        link = each.link
    return None
