"""Batches in SQL: what clients see of them, the claims of gateways that run them, and results until a batch has ended.

A result is a row under the number of its line, so no line is answered twice in a file, and a gateway that takes a batch
over knows what is done. The files are made of these rows in the transaction that ends the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any, BinaryIO

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection
from sqlmodel import col

from coe.base.errors import RequestError
from coe.decision_log.tables.access import BatchResultRow, BatchRow
from coe.retrieval.stores.files import Files, insert_file, new_file, not_found
from coe.retrieval.stores.paging import Page, in_order, paged

VALIDATING, IN_PROGRESS, CANCELLING = "validating", "in_progress", "cancelling"
COMPLETED, CANCELLED, EXPIRED, FAILED = "completed", "cancelled", "expired", "failed"
RUNNING = (VALIDATING, IN_PROGRESS)
UNFINISHED = (*RUNNING, CANCELLING)

MAX_UNFINISHED = 32
"""Batches of one team that wait or run (ours)."""

ROWS_AT_ONCE = 100


class BatchStore:
    """Calls block, and any number of threads may make them. All raise StoreError.

    Args:
        files: where input is read and output is put.
    """

    def __init__(self, files: Files, clock: Callable[[], float] = time.time) -> None:
        self.files, self._database, self._clock = files, files.database, clock

    def put(self, batch: BatchRow) -> None:
        """Raises RequestError 429 where the owner has too many that have not ended."""
        is_open = (col(BatchRow.owner) == batch.owner, col(BatchRow.status).in_(UNFINISHED))
        with self._database.transaction("make a batch") as connection:
            connection.execute(insert(BatchRow).values(**batch.model_dump()))
            count = connection.execute(select(func.count()).where(*is_open)).scalar_one()
            if count > MAX_UNFINISHED:
                message = f"{MAX_UNFINISHED} batches have not ended, which is the limit; cancel one or try again later"
                raise RequestError(message, status=429, code="too_many_batches")

    def batch(self, owner: str, batch_id: str) -> BatchRow:
        """Raises RequestError 404, also for a batch of another owner."""
        query = select(BatchRow).where(col(BatchRow.batch_id) == batch_id, col(BatchRow.owner) == owner)
        with self._database.transaction("read a batch") as connection:
            row = connection.execute(query).one_or_none()
            if row is None:
                raise not_found("batch", batch_id, "batch_id")
            return with_counts(connection, row)

    def page(self, owner: str, page: Page) -> list[BatchRow]:
        """At most one more than the page holds."""
        query = select(BatchRow).where(col(BatchRow.owner) == owner)
        with self._database.transaction("list batches") as connection:
            rows = connection.execute(
                paged(connection, query, col(BatchRow.created_at), col(BatchRow.batch_id), page)
            ).all()
            return in_order([with_counts(connection, row) for row in rows], page)

    def cancel(self, owner: str, batch_id: str) -> BatchRow:
        """Begins no further line; those that run are let end. Raises RequestError 404, 409 for one that has ended."""
        is_it = (col(BatchRow.batch_id) == batch_id, col(BatchRow.owner) == owner, col(BatchRow.status).in_(RUNNING))
        values = {"status": CANCELLING, "cancelling_at": self._clock()}
        self._database.change("cancel a batch", update(BatchRow).where(*is_it).values(**values))
        batch = self.batch(owner, batch_id)
        if batch.status not in (CANCELLING, CANCELLED):
            raise RequestError(f"the batch is {batch.status}: it has ended", status=409, code="batch_ended")
        return batch

    def claim(self, runner: str, seconds: float) -> BatchRow | None:
        """Takes the oldest batch that nobody works on; None when there is none."""
        is_free = (col(BatchRow.status).in_(UNFINISHED), col(BatchRow.claimed_until) < self._clock())
        oldest = (
            select(col(BatchRow.batch_id)).where(*is_free).order_by(col(BatchRow.created_at)).limit(1).scalar_subquery()
        )
        claimed = {"runner": runner, "claimed_until": self._clock() + seconds}
        statement = (
            update(BatchRow).where(col(BatchRow.batch_id) == oldest, *is_free).values(**claimed).returning(BatchRow)
        )
        return next((BatchRow(**row._mapping) for row in self._database.rows("claim a batch", statement)), None)

    def keep(self, runner: str, batch_ids: Collection[str], seconds: float) -> set[str]:
        """Prolongs claims; returns those of the batches that are to continue."""
        is_mine = (col(BatchRow.batch_id).in_(batch_ids), col(BatchRow.runner) == runner)
        statement = update(BatchRow).where(*is_mine).values(claimed_until=self._clock() + seconds)
        rows = self._database.rows("keep claims", statement.returning(col(BatchRow.batch_id), col(BatchRow.status)))
        return {row.batch_id for row in rows if row.status in RUNNING}

    def give_back(self, runner: str) -> None:
        """Ends all claims of a runner, so that others may continue at once."""
        released = update(BatchRow).where(col(BatchRow.runner) == runner).values(runner=None, claimed_until=0.0)
        self._database.change("give batches back", released)

    def begin(self, batch_id: str, total: int) -> None:
        """Notes that the lines were counted."""
        is_it = (col(BatchRow.batch_id) == batch_id, col(BatchRow.status) == VALIDATING)
        values = {"status": IN_PROGRESS, "in_progress_at": self._clock(), "total": total}
        self._database.change("begin a batch", update(BatchRow).where(*is_it).values(**values))

    def done(self, batch_id: str) -> set[int]:
        """Numbers of the lines that have a result."""
        query = select(col(BatchResultRow.number)).where(col(BatchResultRow.batch_id) == batch_id)
        return {row.number for row in self._database.rows("read a batch", query)}

    def put_result(self, batch_id: str, number: int, line: bytes, *, is_error: bool) -> None:
        """Keeps the result of a line; the first one stays."""
        insert = self._database.insert(BatchResultRow).values(
            batch_id=batch_id, number=number, line=line, is_error=is_error
        )
        self._database.change("keep a result", insert.on_conflict_do_nothing())

    def finish(self, runner: str, batch: BatchRow, status: str, problem: str | None = None) -> None:
        """Ends a batch: its files are there, and its rows are gone. One that is being cancelled becomes `cancelled`;
        of one that another runner has nothing changes."""
        is_mine = (
            col(BatchRow.batch_id) == batch.batch_id,
            col(BatchRow.runner) == runner,
            col(BatchRow.status).in_(UNFINISHED),
        )
        released = update(BatchRow).where(*is_mine).values(runner=None).returning(col(BatchRow.status))
        # The files are written out before the transaction, during which other writers of SQLite wait.
        with (
            self._results(batch, is_error=False) as output,
            self._results(batch, is_error=True) as errors,
            self._database.transaction("finish a batch") as connection,
        ):
            before = connection.execute(released).scalar_one_or_none()
            if before is None:
                return
            values: dict[str, object] = {"ended_at": self._clock(), "problem": problem}
            values["status"] = CANCELLED if before == CANCELLING else status
            values["output_file_id"] = put_results(connection, batch, "output", output)
            values["error_file_id"] = put_results(connection, batch, "error", errors)
            values |= counts_of(connection, batch.batch_id)
            connection.execute(delete(BatchResultRow).where(col(BatchResultRow.batch_id) == batch.batch_id))
            connection.execute(update(BatchRow).where(col(BatchRow.batch_id) == batch.batch_id).values(**values))

    @contextmanager
    def _results(self, batch: BatchRow, *, is_error: bool) -> Iterator[BinaryIO]:
        """The results of one kind, in the order of their lines."""
        query = select(col(BatchResultRow.line)).where(
            col(BatchResultRow.batch_id) == batch.batch_id, col(BatchResultRow.is_error) == is_error
        )
        query = query.order_by(col(BatchResultRow.number)).execution_options(yield_per=ROWS_AT_ONCE)
        with TemporaryFile(dir=self.files.incoming) as content:
            with self._database.transaction("read results") as connection:
                content.writelines(line + b"\n" for line in connection.execute(query).scalars())
            yield content


def put_results(connection: Connection, batch: BatchRow, kind: str, content: BinaryIO) -> str | None:
    """Keeps a file of results, at whose end `content` is; None where there is none."""
    if not (size := content.tell()):
        return None
    content.seek(0)
    file = new_file(batch.owner, f"{batch.batch_id}_{kind}.jsonl", "batch_output", size)
    insert_file(connection, file, content)
    return file.file_id


def with_counts(connection: Connection, row: Any) -> BatchRow:
    """The batch of a row. While it runs, its results are counted again."""
    counts = counts_of(connection, row.batch_id) if row.status in UNFINISHED else {}
    return BatchRow(**{**row._mapping, **counts})


def counts_of(connection: Connection, batch_id: str) -> dict[str, int]:
    query = select(col(BatchResultRow.is_error), func.count()).where(col(BatchResultRow.batch_id) == batch_id)
    counts = {is_error: count for is_error, count in connection.execute(query.group_by(col(BatchResultRow.is_error)))}
    return {"completed": counts.get(False, 0), "failed": counts.get(True, 0)}
