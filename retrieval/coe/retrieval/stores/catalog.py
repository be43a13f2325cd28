"""Vector stores in SQL, and the queue of files to read: those in progress, with the claims of processes on them.

Requests name the owner of what they read and change; another owner's data is not found.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, or_, select, update
from sqlmodel import col

from coe.base.errors import RequestError
from coe.decision_log.tables.files import ChunkRow, FileRow, StoreBatchRow, StoreFileRow, StoreRow
from coe.retrieval.stores.chunk_table import delete_chunks
from coe.retrieval.stores.chunking import StaticChunking
from coe.retrieval.stores.files import Files
from coe.retrieval.stores.filters import Scalar
from coe.retrieval.stores.paging import Page, in_order, paged
from coe.retrieval.stores.store_records import DAY_S, Addition, FileStatus, StoreFile, VectorStore, pairs_of

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row, Select, Update
    from sqlalchemy.engine import Connection

MAX_STORE_FILES = 10_000
CLAIM = ("claimed_until", "attempts")  # columns of the queue
WAITS = col(StoreFileRow.status) == FileStatus.IN_PROGRESS.value
STORE_FILE_COLUMNS = [column for column in StoreFileRow.__table__.c if column.name not in CLAIM]


class Catalog:
    """The catalog in a database. Methods block, raise StoreError, and are safe in any number of threads."""

    def __init__(self, files: Files) -> None:
        self.files, self._database = files, files.database

    def stores_of(self, file_id: str) -> list[str]:
        """Return the stores that a file is in."""
        query = select(col(StoreFileRow.store_id)).where(col(StoreFileRow.file_id) == file_id)
        return [row.store_id for row in self._database.rows("find a file's stores", query)]

    def put_store(self, store: VectorStore) -> None:
        names = [column.name for column in StoreRow.__table__.c if column.name != "metadata_json"]
        values = {name: getattr(store, name) for name in names}
        new = insert(StoreRow).values(metadata_json=json.dumps(store.metadata), **values)
        self._database.change("make a vector store", new)

    def store(self, store_id: str, owner: str | None) -> VectorStore | None:
        """Return a store with its counts; None if there is none. `owner` None allows any owner."""
        query = select(StoreRow).where(col(StoreRow.store_id) == store_id)
        if owner is not None:
            query = query.where(col(StoreRow.owner) == owner)
        with self._database.transaction("read a vector store") as connection:
            row = connection.execute(query).one_or_none()
            return None if row is None else with_counts(connection, [row])[0]

    def stores(self, owner: str, page: Page) -> list[VectorStore]:
        """Return a page of stores and one more, which shows that others follow."""
        query = select(StoreRow).where(col(StoreRow.owner) == owner)
        with self._database.transaction("list vector stores") as connection:
            rows = connection.execute(
                paged(connection, query, col(StoreRow.created_at), col(StoreRow.store_id), page)
            ).all()
            return in_order(with_counts(connection, rows), page)

    def stores_in(self, space: str) -> list[tuple[str, str]]:
        """Return (id, owner) of all stores that a base encoder has encoded."""
        query = select(col(StoreRow.store_id), col(StoreRow.owner)).where(col(StoreRow.space) == space)
        rows = self._database.rows("list vector stores", query)
        return [(row.store_id, row.owner) for row in rows]

    def expired_stores(self) -> list[str]:
        """Return the ids of expired stores."""
        is_expired = col(StoreRow.last_active_at) + col(StoreRow.expires_days) * DAY_S < time.time()
        query = select(col(StoreRow.store_id)).where(col(StoreRow.expires_days).is_not(None), is_expired)
        return [row.store_id for row in self._database.rows("find expired vector stores", query)]

    def change_store(self, store_id: str, values: Mapping[str, object]) -> None:
        """Set columns of a store."""
        statement = update(StoreRow).where(col(StoreRow.store_id) == store_id).values(**values)
        self._database.change("change a vector store", statement)

    def delete_store(self, store_id: str) -> None:
        """Delete a store with its chunks. The uploaded files stay."""
        with self._database.transaction("delete a vector store") as connection:
            for model in (StoreRow, StoreFileRow, StoreBatchRow):  # the store first, as `attach` does: no deadlock
                connection.execute(delete(model).where(col(model.store_id) == store_id))
            delete_chunks(connection, col(ChunkRow.store_id) == store_id)

    def attach(
        self, store_id: str, files: Sequence[Addition], default: StaticChunking, batch_id: str | None = None
    ) -> bool:
        """Add files to a store's queue, and record their batch; return False if the store is gone.

        A file that is already there is read again.

        Raises:
            RequestError: 400, the store would have too many files; none was added.
        """
        now = time.time()
        keys = ("store_id", "file_id")
        rows = [new_row(store_id, each, default, batch_id, now) for each in files]
        upsert = self._database.insert(StoreFileRow)
        changed = {name: upsert.excluded[name] for name in rows[0] if name not in keys}
        held = select(func.count()).where(col(StoreFileRow.store_id) == store_id)
        with self._database.transaction("attach files") as connection:
            # Changing the store's row first keeps others from attaching until the files are counted.
            if not connection.execute(next_version(store_id).values(last_active_at=now)).rowcount:
                return False
            connection.execute(upsert.on_conflict_do_update(index_elements=list(keys), set_=changed), rows)
            count = connection.execute(held).scalar_one()
            if count > MAX_STORE_FILES:
                raise RequestError(
                    f"{store_id} would hold {count} files; allowed: {MAX_STORE_FILES} in all",
                    code="too_many_files",
                    param="file_id",
                )
            if batch_id is not None:
                connection.execute(insert(StoreBatchRow).values(store_id=store_id, batch_id=batch_id, created_at=now))
        return True

    def store_file(self, store_id: str, file_id: str) -> StoreFile | None:
        """Return a file of a store, whose owner the caller has checked; None if there is none."""
        query = store_files_query().where(*is_file(store_id, file_id))
        return next(map(store_file_of, self._database.rows("read a store's file", query)), None)

    def store_files(
        self, store_id: str, page: Page, status: FileStatus | None = None, batch_id: str | None = None
    ) -> list[StoreFile]:
        """Return a page of a store's files and one more, which shows that others follow."""
        query = store_files_query().where(col(StoreFileRow.store_id) == store_id)
        if status is not None:
            query = query.where(col(StoreFileRow.status) == status.value)
        if batch_id is not None:
            query = query.where(col(StoreFileRow.batch_id) == batch_id)
        with self._database.transaction("list a store's files") as connection:
            ordered = paged(connection, query, col(StoreFileRow.created_at), col(StoreFileRow.file_id), page)
            rows = connection.execute(ordered).all()
        return in_order([store_file_of(row) for row in rows], page)

    def batch(self, store_id: str, batch_id: str) -> tuple[dict[FileStatus, int], float] | None:
        """Return the number of a batch's files by status, and its Unix time; None if there is no such batch."""
        made = select(col(StoreBatchRow.created_at)).where(
            col(StoreBatchRow.store_id) == store_id, col(StoreBatchRow.batch_id) == batch_id
        )
        files = (
            select(col(StoreFileRow.status), func.count())
            .where(col(StoreFileRow.store_id) == store_id, col(StoreFileRow.batch_id) == batch_id)
            .group_by(col(StoreFileRow.status))
        )
        with self._database.transaction("read a batch") as connection:
            created_at = connection.execute(made).scalar_one_or_none()
            counts = {FileStatus(row[0]): row[1] for row in connection.execute(files)}
        return None if created_at is None else (counts, created_at)

    def change_store_file(self, store_id: str, file_id: str, values: Mapping[str, object]) -> bool:
        """Set columns of a store's file; return False if it is gone."""
        statement = update(StoreFileRow).where(*is_file(store_id, file_id)).values(**values)
        with self._database.transaction("change a store's file") as connection:
            if values.keys() & {"status", "attributes_json"}:
                connection.execute(next_version(store_id))
            return bool(connection.execute(statement).rowcount)

    def cancel_batch(self, store_id: str, batch_id: str) -> None:
        """Cancel the files of a batch that no reader has started."""
        statement = update(StoreFileRow).where(
            col(StoreFileRow.store_id) == store_id,
            col(StoreFileRow.batch_id) == batch_id,
            WAITS,
            col(StoreFileRow.claimed_until).is_(None),
        )
        self._database.change("cancel a batch", statement.values(status=FileStatus.CANCELLED.value))

    def detach(self, store_id: str, file_id: str) -> bool:
        """Remove a file and its chunks from a store; return False if it was not there."""
        with self._database.transaction("detach a file") as connection:
            connection.execute(next_version(store_id))
            delete_chunks(connection, col(ChunkRow.store_id) == store_id, col(ChunkRow.file_id) == file_id)
            return bool(connection.execute(delete(StoreFileRow).where(*is_file(store_id, file_id))).rowcount)

    def attributes(self, store_id: str) -> dict[str, dict[str, Scalar]]:
        """Return the attributes of every searchable file of a store."""
        query = select(col(StoreFileRow.file_id), col(StoreFileRow.attributes_json)).where(
            col(StoreFileRow.store_id) == store_id, col(StoreFileRow.status) == FileStatus.COMPLETED.value
        )
        rows = self._database.rows("read attributes", query)
        return {row.file_id: pairs_of(row.attributes_json, row.file_id) for row in rows}

    def claim(self, store_id: str, file_id: str, seconds: float) -> int:
        """Claim a file and return the number of the attempt, starting at 1; 0 if it does not wait or is claimed."""
        now = time.time()
        is_free = or_(col(StoreFileRow.claimed_until).is_(None), col(StoreFileRow.claimed_until) < now)
        statement = (
            update(StoreFileRow)
            .where(*is_file(store_id, file_id), WAITS, is_free)
            .values(claimed_until=now + seconds, attempts=col(StoreFileRow.attempts) + 1)
            .returning(col(StoreFileRow.attempts))
        )
        return next((row.attempts for row in self._database.rows("claim a file", statement)), 0)

    def give_back(self, store_id: str, file_id: str) -> None:
        """Undo a claim, so that another attempt may follow at once: the file did not cause this one's end."""
        values = {"claimed_until": None, "attempts": col(StoreFileRow.attempts) - 1}
        is_claimed = col(StoreFileRow.claimed_until).is_not(None)
        statement = update(StoreFileRow).where(*is_file(store_id, file_id), is_claimed).values(**values)
        self._database.change("give a file back", statement)

    def owners_waiting(self) -> list[str]:
        """Return the owners of files to read, the owner of the oldest file first."""
        query = (
            select(col(StoreRow.owner))
            .select_from(StoreFileRow)
            .join(col(StoreFileRow.store))
            .where(WAITS)
            .group_by(col(StoreRow.owner))
            .order_by(func.min(col(StoreFileRow.created_at)))
        )
        return [row.owner for row in self._database.rows("find files to read", query)]

    def waiting_of_owner(self, owner: str) -> list[tuple[str, str]]:
        """Return (store, file) of an owner's files to read, oldest first."""
        query = (
            select(col(StoreFileRow.store_id), col(StoreFileRow.file_id))
            .join(col(StoreFileRow.store))
            .where(WAITS, col(StoreRow.owner) == owner)
            .order_by(col(StoreFileRow.created_at))
        )
        return [(row.store_id, row.file_id) for row in self._database.rows("find files to read", query)]

    def waiting_of_store(self, store_id: str) -> set[str]:
        """Return the files of a store that are to be read."""
        query = select(col(StoreFileRow.file_id)).where(col(StoreFileRow.store_id) == store_id, WAITS)
        return {row.file_id for row in self._database.rows("find files to read", query)}

    def keep_claim(self, store_id: str, file_id: str, seconds: float) -> bool:
        """Extend the claim on a file; return False if the file is gone."""
        return self.change_store_file(store_id, file_id, {"claimed_until": time.time() + seconds})


def next_version(store_id: str) -> Update:
    """Return the statement that counts a change of a store's files; run it first, so that writers wait."""
    return update(StoreRow).where(col(StoreRow.store_id) == store_id).values(version=col(StoreRow.version) + 1)


def is_file(store_id: str, file_id: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions on a file of a store."""
    return col(StoreFileRow.store_id) == store_id, col(StoreFileRow.file_id) == file_id


def new_row(
    store_id: str, file: Addition, default: StaticChunking, batch_id: str | None, now: float
) -> dict[str, object]:
    """Return the columns of a file to read."""
    return {
        "store_id": store_id,
        "file_id": file.file_id,
        "status": FileStatus.IN_PROGRESS.value,
        "error_code": None,
        "error_message": None,
        "attributes_json": json.dumps(dict(file.attributes)),
        "strategy_json": (file.chunking or default).model_dump_json(),
        "batch_id": batch_id,
        "usage_bytes": 0,
        "created_at": now,
        "claimed_until": None,
        "attempts": 0,
    }


def store_files_query() -> Select[Any]:
    return select(*STORE_FILE_COLUMNS, col(FileRow.filename)).select_from(StoreFileRow).join(col(StoreFileRow.file))


def store_file_of(row: Row[Any]) -> StoreFile:
    values = dict(row._mapping)
    status, attributes = FileStatus(values.pop("status")), pairs_of(values.pop("attributes_json"), row.file_id)
    return StoreFile(status=status, attributes=attributes, strategy=values.pop("strategy_json"), **values)


def with_counts(connection: Connection, rows: Sequence[Row[Any]]) -> list[VectorStore]:
    """Return the stores of rows, with their numbers of files and bytes."""
    ids = [row.store_id for row in rows]
    query = (
        select(
            col(StoreFileRow.store_id), col(StoreFileRow.status), func.count(), func.sum(col(StoreFileRow.usage_bytes))
        )
        .where(col(StoreFileRow.store_id).in_(ids))
        .group_by(col(StoreFileRow.store_id), col(StoreFileRow.status))
    )
    counts: dict[str, dict[FileStatus, int]] = {each: {} for each in ids}
    usage = dict.fromkeys(ids, 0)
    for store_id, status, count, total in connection.execute(query):
        counts[store_id][FileStatus(status)] = count
        usage[store_id] += int(total or 0)
    return [store_of(row, counts[row.store_id], usage[row.store_id]) for row in rows]


def store_of(row: Row[Any], counts: dict[FileStatus, int], usage_bytes: int) -> VectorStore:
    values = dict(row._mapping)
    metadata = pairs_of(values.pop("metadata_json"), row.store_id)
    return VectorStore(metadata=metadata, counts=counts, usage_bytes=usage_bytes, **values)
