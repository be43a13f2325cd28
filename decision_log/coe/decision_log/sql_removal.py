"""Removal of decisions from SQL on purpose, with their feedback: those of a subject, and expired ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import case, delete, exists, or_, select
from sqlmodel import col

from coe.base.json_text import JsonError, from_json
from coe.decision_log.database import Database
from coe.decision_log.ledger import Ledger
from coe.decision_log.ranges import count, merged
from coe.decision_log.read import BATCH_IDS
from coe.decision_log.replica_status import ReplicaState
from coe.decision_log.sql_engine import in_parts
from coe.decision_log.tables.log import (
    DecisionRow,
    DocumentFeedbackRow,
    ErasureRow,
    FeedbackRow,
    JudgementRow,
    RemovedRow,
    ReplicaRow,
)
from coe.decision_log.tombstones import delete_of, lock, note_removed, subject_hash

BATCH_ROWS = 5000


@dataclass(frozen=True, slots=True)
class Removed:
    """Counts of what was removed from SQL."""

    decisions: int = 0
    feedback: int = 0

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.decisions + other.decisions, self.feedback + other.feedback)


class Found(NamedTuple):
    """A decision to remove."""

    decision_id: str
    replica: str
    seq: int


def found_of(line: bytes | str, subjects: Collection[str], until: float) -> Found | None:
    """Return a JSON record's decision if one of the subjects made it at or before `until`; None otherwise."""
    try:
        values = from_json(line)
    except JsonError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("at"), int | float) or values["at"] > until:
        return None
    if not any(values.get(name) in subjects for name in ("key_id", "session_id", "text_hash")):
        return None
    return Found(str(values.get("decision_id")), str(values.get("replica")), int(values.get("seq", 0)))


class Removal:
    """Removal of decisions. Methods block, and raise StoreError; completed parts stay done."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def erase(self, subjects: Collection[str], at: float) -> Removed:
        """Remove every decision of the subjects made up to `at`, and reject those that arrive later.

        Args:
            subjects: stored key ids, session ids and text hashes.
            at: Unix seconds.
        """
        with self._database.transaction("erase") as connection:
            lock(connection, for_erasure=True)
            insert = self._database.insert(ErasureRow)
            later = case((insert.excluded.at > col(ErasureRow.at), insert.excluded.at), else_=col(ErasureRow.at))
            statement = insert.on_conflict_do_update(index_elements=[col(ErasureRow.subject)], set_={"at": later})
            connection.execute(statement, [{"subject": subject_hash(each), "at": at} for each in sorted(subjects)])
        total, found = Removed(), self.decisions_of(subjects, at)
        for some in in_parts(found, BATCH_ROWS):
            total += self.remove(some, reason="erased", at=at)
        with self._database.transaction("erase feedback") as connection:
            for table in (FeedbackRow.__table__, DocumentFeedbackRow.__table__):
                given = delete(table).where(table.c.key_id.in_(subjects), table.c.at <= at)
                total += Removed(feedback=connection.execute(given).rowcount)
        self._database.checkpoint()
        return total

    def prune(self, before: float, at: float) -> Removed:
        """Remove decisions made before a Unix time, and feedback from then without a decision."""
        old = select(col(DecisionRow.decision_id), col(DecisionRow.replica), col(DecisionRow.seq)).where(
            col(DecisionRow.at) < before
        )
        total = Removed()
        oldest = old.order_by(col(DecisionRow.at)).limit(BATCH_ROWS)
        while found := [Found(*row) for row in self._database.rows("read old decisions", oldest)]:
            total += self.remove(found, reason="expired", at=at)
        with self._database.transaction("prune feedback") as connection:
            for table in (FeedbackRow.__table__, DocumentFeedbackRow.__table__):
                has_decision = exists().where(col(DecisionRow.decision_id) == table.c.decision_id)
                orphans = delete(table).where(table.c.at < before, ~has_decision)
                total += Removed(feedback=connection.execute(orphans).rowcount)
            was_decided = exists().where(col(DecisionRow.decision_id) == col(JudgementRow.decision_id))
            connection.execute(delete(JudgementRow).where(col(JudgementRow.at) < before, ~was_decided))
        self._forget_finished()
        self._database.checkpoint()
        return total

    def remove(self, found: Sequence[Found], *, reason: str, at: float) -> Removed:
        """Remove decisions from SQL and record their numbers as removed, also of those that never arrived."""
        insert, ids = self._database.insert, [each.decision_id for each in found]
        with self._database.transaction("remove decisions") as connection:
            lock(connection, for_erasure=True)
            note_removed(connection, insert, [(each.replica, each.seq) for each in found], reason=reason, at=at)
            feedback = sum(delete_of(connection, insert, some) for some in in_parts(ids, BATCH_IDS))
        return Removed(len(found), feedback)

    def decisions_of(self, subjects: Collection[str], at: float) -> list[Found]:
        """Return the subjects' rows up to `at`. It scans all rows, because some subjects are only in the record."""
        columns = (
            col(DecisionRow.decision_id),
            col(DecisionRow.replica),
            col(DecisionRow.seq),
            col(DecisionRow.record),
        )
        mentions = or_(*(col(DecisionRow.record).contains(f'"{each}"', autoescape=True) for each in sorted(subjects)))
        query = select(*columns).where(mentions, col(DecisionRow.at) <= at)
        found = []
        with (
            self._database.transaction("find decisions") as connection,
            closing(connection.execute(query.execution_options(yield_per=BATCH_IDS))) as rows,
        ):
            for row in rows:
                if found_of(row.record, subjects, at):
                    found.append(Found(row.decision_id, row.replica, row.seq))
        return found

    def _forget_finished(self) -> None:
        """Delete the accounts of replicas that ended and have no row left."""
        for account in Ledger(self._database).accounts():
            is_over = account.status is not None and account.status.state is not ReplicaState.RUNNING
            if not is_over or account.rows or count(merged(account.removed)) < account.decisions:
                continue
            with self._database.transaction("forget a replica") as connection:
                connection.execute(delete(RemovedRow).where(col(RemovedRow.replica) == account.replica))
                connection.execute(delete(ReplicaRow).where(col(ReplicaRow.replica) == account.replica))
