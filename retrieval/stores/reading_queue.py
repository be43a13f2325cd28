"""The queue of files to read: files of stores that are in progress, and the claims of processes on them."""

from __future__ import annotations

import time

from sqlalchemy import func, or_, select

from decision_log.database import Database
from retrieval.stores.store_records import FileStatus
from retrieval.stores.tables import STORE_FILES, STORES, is_file


class ReadingQueue:
    """Calls block, and any number of threads may make them. All raise StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, store_id: str, file_id: str, seconds: float) -> int:
        """Counts an attempt at reading the file, before it begins, and returns its number from 1; 0 when the file does
        not wait or another process has it in hand."""
        now = time.time()
        statement = (
            STORE_FILES.update()
            .where(
                *is_file(store_id, file_id),
                STORE_FILES.c.status == FileStatus.IN_PROGRESS.value,
                or_(STORE_FILES.c.claimed_until.is_(None), STORE_FILES.c.claimed_until < now),
            )
            .values(claimed_until=now + seconds, attempts=STORE_FILES.c.attempts + 1)
            .returning(STORE_FILES.c.attempts)
        )
        with self._database.transaction("claim a file") as connection:
            return connection.execute(statement).scalar_one_or_none() or 0

    def keep(self, store_id: str, file_id: str, seconds: float) -> bool:
        """Prolongs a claim; False when the file is gone."""
        statement = STORE_FILES.update().where(*is_file(store_id, file_id))
        with self._database.transaction("keep a claim") as connection:
            return bool(connection.execute(statement.values(claimed_until=time.time() + seconds)).rowcount)

    def give_back(self, store_id: str, file_id: str) -> None:
        """Undoes a claim, so that another attempt may follow at once: what ended this one was not the file."""
        values = {"claimed_until": None, "attempts": STORE_FILES.c.attempts - 1}
        is_claimed = STORE_FILES.c.claimed_until.is_not(None)
        with self._database.transaction("give a file back") as connection:
            connection.execute(STORE_FILES.update().where(*is_file(store_id, file_id), is_claimed).values(**values))

    def owners(self) -> list[str]:
        """Owners of files that are to be read, that of the oldest file first."""
        query = (
            select(STORES.c.owner)
            .join(STORE_FILES, STORE_FILES.c.store_id == STORES.c.store_id)
            .where(STORE_FILES.c.status == FileStatus.IN_PROGRESS.value)
            .group_by(STORES.c.owner)
            .order_by(func.min(STORE_FILES.c.created_at))
        )
        with self._database.transaction("find files to read") as connection:
            return list(connection.execute(query).scalars())

    def of_owner(self, owner: str) -> list[tuple[str, str]]:
        """(store, file) of what is to be read of an owner, oldest first."""
        query = (
            select(STORE_FILES.c.store_id, STORE_FILES.c.file_id)
            .join(STORES, STORES.c.store_id == STORE_FILES.c.store_id)
            .where(STORE_FILES.c.status == FileStatus.IN_PROGRESS.value, STORES.c.owner == owner)
            .order_by(STORE_FILES.c.created_at)
        )
        with self._database.transaction("find files to read") as connection:
            return [(row.store_id, row.file_id) for row in connection.execute(query)]

    def of_store(self, store_id: str) -> set[str]:
        """Files of a store that are to be read."""
        query = select(STORE_FILES.c.file_id).where(
            STORE_FILES.c.store_id == store_id, STORE_FILES.c.status == FileStatus.IN_PROGRESS.value
        )
        with self._database.transaction("find files to read") as connection:
            return set(connection.execute(query).scalars())

    def read_again(self, store_id: str) -> None:
        """Every file of a store that was read is to be read once more."""
        statement = STORE_FILES.update().where(
            STORE_FILES.c.store_id == store_id, STORE_FILES.c.status == FileStatus.COMPLETED.value
        )
        with self._database.transaction("have files read again") as connection:
            connection.execute(statement.values(status=FileStatus.IN_PROGRESS.value, claimed_until=None, attempts=0))

    def release_claims(self) -> None:
        """Ends all claims: for a process that knows it is the only one."""
        with self._database.transaction("release claims") as connection:
            connection.execute(STORE_FILES.update().values(claimed_until=None))
