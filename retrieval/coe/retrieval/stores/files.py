"""Uploaded files in SQL, for vector stores and batches. Files of another owner are not found."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sqlalchemy import delete, insert, select
from sqlmodel import col

from coe.base.errors import RequestError, shorten
from coe.decision_log.database import Database
from coe.decision_log.tables.files import FilePartRow, FileRow
from coe.retrieval.stores.paging import Page, in_order, paged

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PART_BYTES = 1024 * 1024


class Files:
    """The files of a database. Coroutines work off the event loop, other methods block; all raise StoreError.

    Args:
        incoming: folder of uploads in progress; it is created.
    """

    def __init__(self, database: Database, incoming: Path) -> None:
        self.database, self.incoming = database, incoming
        self._keeping = asyncio.Lock()
        incoming.mkdir(parents=True, exist_ok=True)

    async def upload(self, owner: str, filename: str, purpose: str, content: BinaryIO, size_bytes: int) -> FileRow:
        """Store a file, one at a time: SQLite has one writer, which delays others."""
        file = new_file(owner, filename, purpose, size_bytes)
        async with self._keeping:
            await asyncio.to_thread(self._put, file, content)
        return file

    async def file(self, owner: str, file_id: str) -> FileRow:
        """Return a file; raise RequestError 404 if the owner has none of this id."""
        file = await asyncio.to_thread(self.find, owner, file_id)
        if file is None:
            raise not_found("file", file_id, "file_id")
        return file

    async def delete(self, owner: str, file_id: str) -> None:
        """Delete a file that is in no vector store; raise RequestError 404 if there is none."""
        await self.file(owner, file_id)
        await asyncio.to_thread(self._delete, owner, file_id)

    async def read(self, file_id: str) -> AsyncIterator[bytes]:
        """Yield a file in parts; the caller has checked its owner."""
        parts = self.parts(file_id)
        while part := await asyncio.to_thread(next, parts, b""):
            yield part

    def parts(self, file_id: str) -> Iterator[bytes]:
        """Yield a file in parts of `PART_BYTES`, none if it is gone; the caller has checked its owner."""
        for number in count():
            query = select(col(FilePartRow.content)).where(
                col(FilePartRow.file_id) == file_id, col(FilePartRow.number) == number
            )
            found = self.database.rows("read a file", query)
            if not found or not found[0].content:
                return
            yield found[0].content

    def copy(self, file_id: str, out: BinaryIO) -> int:
        """Copy a file in parts and return its bytes, 0 if it is gone; the caller has checked its owner."""
        out.writelines(self.parts(file_id))
        return out.tell()

    def find(self, owner: str, file_id: str) -> FileRow | None:
        query = select(FileRow).where(col(FileRow.file_id) == file_id, col(FileRow.owner) == owner)
        return next((FileRow(**row._mapping) for row in self.database.rows("read a file", query)), None)

    def page(self, owner: str, page: Page, purpose: str | None = None) -> list[FileRow]:
        """Return a page of files and one more, which shows that others follow."""
        query = select(FileRow).where(col(FileRow.owner) == owner)
        if purpose is not None:
            query = query.where(col(FileRow.purpose) == purpose)
        with self.database.transaction("list files") as connection:
            rows = connection.execute(
                paged(connection, query, col(FileRow.created_at), col(FileRow.file_id), page)
            ).all()
        return in_order([FileRow(**row._mapping) for row in rows], page)

    def _put(self, file: FileRow, content: BinaryIO) -> None:
        with self.database.transaction("keep a file") as connection:
            insert_file(connection, file, content)

    def _delete(self, owner: str, file_id: str) -> None:
        with self.database.transaction("delete a file") as connection:
            gone = connection.execute(
                delete(FileRow).where(col(FileRow.file_id) == file_id, col(FileRow.owner) == owner)
            )
            if gone.rowcount:
                connection.execute(delete(FilePartRow).where(col(FilePartRow.file_id) == file_id))


def insert_file(connection: Connection, file: FileRow, content: BinaryIO) -> None:
    """Insert a file and its bytes up to their end, with one part in memory at a time."""
    connection.execute(insert(FileRow).values(**file.model_dump()))
    for number, part in enumerate(iter(partial(content.read, PART_BYTES), b"")):
        connection.execute(insert(FilePartRow).values(file_id=file.file_id, number=number, content=part))


def new_file(owner: str, filename: str, purpose: str, size_bytes: int) -> FileRow:
    return FileRow(
        file_id=new_id("file"),
        owner=owner,
        filename=filename,
        purpose=purpose,
        size_bytes=size_bytes,
        created_at=time.time(),
    )


def new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(12)}" if kind != "vs" else f"vs_{secrets.token_hex(12)}"


def not_found(what: str, name: str, param: str) -> RequestError:
    return RequestError(f"there is no {what} {shorten(name)}", status=404, code="not_found", param=param)
