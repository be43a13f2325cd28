"""The SQL database of decisions and feedback, on SQLite or Postgres. Training reads the same tables."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select
from sqlmodel import col

from coe.base.errors import StoreError
from coe.decision_log.decision_record import DecisionRecord
from coe.decision_log.feedback_types import DocumentFeedback, Feedback, FeedbackStatus, ImplicitKind, JudgedAnswer
from coe.decision_log.listing import DecisionFilter, Page, Place, list_decisions
from coe.decision_log.payloads import Logged, from_payload, to_payload
from coe.decision_log.read import implicit_kinds, read_reasked, record_of
from coe.decision_log.schema import upgrade
from coe.decision_log.spend import Spend, add_spend, spend_by_key
from coe.decision_log.sql_engine import close_engine, hold, in_parts, open_engine, translated_errors
from coe.decision_log.tables.log import DecisionRow, DocumentFeedbackRow, FeedbackRow, JudgementRow
from coe.decision_log.tombstones import delete_of, erased_among, lock, note_removed
from coe.router.config.feedback import FeedbackConfig

if TYPE_CHECKING:
    from sqlalchemy import Executable, Row
    from sqlalchemy.engine import Connection

HOUR_S = 3600.0
KEY_LOCK = 0x636F6666  # "coff", for Postgres's advisory locks
NO_CAPS = FeedbackConfig(max_per_hour=2**31)


class SomeAreThereError(Exception):
    """Some of the decisions to write exist already. Nothing was written, because their sums would count twice."""


class Database:
    """The database. Methods block, and raise StoreError if it fails; any number of threads may share one.

    Raises:
        ConfigError: `database_url` is not a URL, or its database is not supported.
        MissingExtraError: the driver of Postgres is not installed.
        StoreError: the database cannot be opened.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url)
        self.insert: Any = import_module(f"sqlalchemy.dialects.{self._engine.dialect.name}").insert
        try:
            with translated_errors("open"):
                upgrade(self._engine)
        except StoreError:
            self.close()
            raise

    def write_decisions(self, records: Sequence[DecisionRecord | Logged]) -> int:
        """Insert the records with new decision ids in one transaction; return how many were new.

        Records of an erased subject are left out, their feedback is deleted, and their numbers are recorded as removed.
        On StoreError nothing was written.
        """
        logged = [each if isinstance(each, Logged) else from_payload(to_payload(each)) for each in records]
        # Two writers that lock the same rows in different order would wait for each other.
        rows = {each.record.decision_id: each for each in sorted(logged, key=lambda each: each.record.decision_id)}
        while rows:
            try:
                return self._write(rows)
            except SomeAreThereError:
                there = select(col(DecisionRow.decision_id)).where(col(DecisionRow.decision_id).in_(rows))
                for row in self.rows("look for decisions", there):
                    del rows[row.decision_id]
        return 0

    def _write(self, rows: Mapping[str, Logged]) -> int:
        """Insert records by their ids, all or none, and return how many; raise SomeAreThereError if some exist."""
        with self.transaction("write decisions") as connection:
            lock(connection, for_erasure=False)
            erased = erased_among(connection, [each.record for each in rows.values()])
            if erased:
                numbers = [(gone.replica, gone.seq) for gone in erased]
                note_removed(connection, self.insert, numbers, reason="erased", at=time.time())
                # What was said of them may have been here before.
                gone_ids = [gone.decision_id for gone in erased]
                delete_of(connection, self.insert, gone_ids)
                rows = {name: each for name, each in rows.items() if name not in gone_ids}
            new = insert_rows(connection, [row_of(each) for each in rows.values()])
            if 0 < new < len(rows):
                raise SomeAreThereError
            parts = [each.record for each in rows.values()]
            if new:
                add_spend(connection, self.insert, parts)
            return new

    def get_decision(self, decision_id: str) -> DecisionRecord | None:
        """Return the record of a decision; None if there is none."""
        columns = (col(DecisionRow.decision_id), col(DecisionRow.record), col(DecisionRow.embedding))
        query = select(*columns).where(col(DecisionRow.decision_id) == decision_id)
        return next(map(record_of, self.rows("read a decision", query)), None)

    def list_decisions(self, tenant: str, wanted: DecisionFilter, *, limit: int, after: Place | None = None) -> Page:
        """Return a page of a team's decisions, as `decision_log.listing` defines it."""
        with self.transaction("list decisions") as connection:
            return list_decisions(connection, tenant, wanted, limit=limit, after=after)

    def spend(self, tenant: str | None, slots: range) -> tuple[Spend, ...]:
        """Return the sums of `spend_by_key`."""
        with self.transaction("read the spend") as connection:
            return spend_by_key(connection, tenant, slots)

    def put_feedback(
        self, feedback: Feedback | DocumentFeedback, caps: FeedbackConfig = NO_CAPS, about: DecisionRecord | None = None
    ) -> FeedbackStatus:
        """Store feedback by decision, kind or document, and key; another value of the same key replaces the first.

        Args:
            caps: the hourly limit of a key, for answers and for documents separately.
            about: the decision, which may not have reached SQL yet. Feedback on an erased decision is rejected. None
                skips this
                check.

        Raises:
            StoreError: nothing was written.
        """
        of_document = isinstance(feedback, DocumentFeedback)
        model, subject = (DocumentFeedbackRow, "document_id") if of_document else (FeedbackRow, "kind")
        table = model.__table__
        row = feedback.model_dump(mode="json") | {"key_id": feedback.key_id or ""}
        is_mine = and_(table.c.decision_id == feedback.decision_id, table.c.key_id == row["key_id"])
        with self.transaction("write feedback") as connection:
            lock(connection, for_erasure=False)
            if about is not None and erased_among(connection, [about]):
                return FeedbackStatus.ERASED
            hold(connection, KEY_LOCK, zlib.crc32(row["key_id"].encode()) >> 1)  # so that the caps are exact
            values = select(table.c[subject], table.c.value).where(is_mine)
            said = {name: value for name, value in connection.execute(values)}
            if row[subject] in said:
                if said[row[subject]] == feedback.value:
                    return FeedbackStatus.REPEATED
                earlier = table.update().where(is_mine, table.c[subject] == row[subject])
                connection.execute(earlier.values(value=feedback.value, at=feedback.at))
                return FeedbackStatus.REPLACED
            lately = and_(table.c.key_id == row["key_id"], table.c.at > feedback.at - HOUR_S)
            if connection.scalars(select(func.count()).select_from(table).where(lately)).one() >= caps.max_per_hour:
                return FeedbackStatus.OVER_HOUR
            connection.execute(self.insert(table).values(**row))
            return FeedbackStatus.ACCEPTED

    def get_signals(self, record: DecisionRecord) -> tuple[ImplicitKind, ...]:
        """Return the implicit signals of the client about a decision, see `implicit_kinds`."""
        with self.transaction("read signals") as connection:
            return implicit_kinds(record, read_reasked(connection, record.session_id or ""))

    def put_judgements(self, judgements: Sequence[JudgedAnswer]) -> None:
        """Store judgements; a repeated judgement of the same answer changes nothing."""
        if judgements:
            rows = [judgement.model_dump(mode="json") for judgement in judgements]
            with self.transaction("write judgements") as connection:
                lock(connection, for_erasure=False)  # what is archived has all that was said of it
                connection.execute(self.insert(JudgementRow).on_conflict_do_nothing(), rows)

    def count_compared(self, judge: str, rubric: str) -> Counter[str]:
        """Return the number of answer pairs that a judge compared by a rubric, for each expert in them."""
        pairs, found = JudgementRow.__table__.c, Counter[str]()
        theirs = (pairs.judge == judge) & (pairs.rubric == rubric) & (pairs.other != "")
        query = select(pairs.expert, pairs.other, func.count()).where(theirs)
        for expert, other, n in self.rows("count judgements", query.group_by(pairs.expert, pairs.other)):
            found.update({expert: n, other: n})
        return found

    def get_feedback(self, decision_id: str) -> tuple[Feedback, ...]:
        """Return the feedback on a decision, oldest first."""
        columns = [FeedbackRow.__table__.c[name] for name in Feedback.model_fields]
        query = (
            select(*columns)
            .where(col(FeedbackRow.decision_id) == decision_id)
            .order_by(col(FeedbackRow.at), col(FeedbackRow.id))
        )
        rows = self.rows("read feedback", query)
        return tuple(Feedback.model_validate({**row._mapping, "key_id": row.key_id or None}) for row in rows)

    def count(self) -> int:
        """Return the number of rows in `decisions`."""
        with self.transaction("count") as connection:
            return connection.execute(select(func.count()).select_from(DecisionRow)).scalar_one()

    def checkpoint(self) -> None:
        """Empty SQLite's write-ahead log, which keeps deleted data for a while."""
        if self._engine.dialect.name == "sqlite":
            with translated_errors("checkpoint"), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close every connection."""
        close_engine(self._engine)

    @contextmanager
    def transaction(self, action: str) -> Iterator[Connection]:
        """Run a block in a transaction. An error says what failed (`action`), without any value of a statement."""
        with translated_errors(f"{action} in"), self._engine.begin() as connection:
            yield connection

    def rows(self, action: str, query: Executable) -> Sequence[Row[*tuple[Any, ...]]]:
        """Run one query in a transaction of its own and return its rows."""
        with self.transaction(action) as connection:
            return connection.execute(query).all()

    def change(self, action: str, statement: Executable) -> int:
        """Run one statement in a transaction of its own and return the number of changed rows."""
        with self.transaction(action) as connection:
            return connection.execute(statement).rowcount


def insert_rows(connection: Connection, rows: Sequence[tuple[object, ...]]) -> int:
    """Insert rows of `row_of` with new decision ids, and return how many were new.

    The statement is text, because SQLAlchemy took longer to build it than the database to run it. All rows share it:
    for each execution SQLite's driver releases the interpreter, which requests may keep as long as they want.
    """
    place = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    names = DecisionRow.__table__.c.keys()
    row = f"({', '.join([place] * len(names))})"
    new = 0
    for part in in_parts(rows):
        statement = (
            f"INSERT INTO decisions ({', '.join(names)}) VALUES {', '.join([row] * len(part))} "
            "ON CONFLICT (decision_id) DO NOTHING"
        )
        new += connection.exec_driver_sql(statement, tuple(chain.from_iterable(part))).rowcount
    return new


def row_of(logged: Logged) -> tuple[object, ...]:
    """Return the column values of one decision, in the table's order."""
    record = logged.record
    decision = record.decision
    return (
        record.decision_id,
        record.at,
        record.replica,
        record.seq,
        record.state,
        record.served_expert or (decision.expert if decision else None),
        decision.category if decision else None,
        decision.reason if decision else None,
        decision.router_version if decision else None,
        decision.policy if decision else None,
        decision.is_fallback if decision else None,
        record.is_probe,
        record.tenant,
        logged.line,
        record.session_id,
        record.text_hash if record.loop is None else None,
        logged.embedding,
        record.inputs.encoder if record.inputs else None,
    )
