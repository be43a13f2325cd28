"""The ledger of replicas in SQL: how many decisions each numbered, and which of these have a row or were removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Select, case, func, select
from sqlmodel import col

from coe.decision_log.database import Database
from coe.decision_log.ranges import count, merged
from coe.decision_log.replica_status import ReplicaState, ReplicaStatus
from coe.decision_log.tables.log import DecisionRow, RemovedRow, ReplicaRow


@dataclass(slots=True)
class Account:
    """One replica in SQL. `status` is None if it sent none and only has rows."""

    replica: str
    status: ReplicaStatus | None = None
    rows: int = 0
    written: list[range] = field(default_factory=list)  # numbers that have a row
    removed: list[range] = field(default_factory=list)  # numbers that were removed on purpose

    @property
    def decisions(self) -> int:
        """Number of decisions that it numbered, as far as SQL knows."""
        ends = [each.stop for each in (*self.written, *self.removed)]
        return max([0 if self.status is None else self.status.decisions, *ends])

    @property
    def duplicates(self) -> int:
        """Number of rows that repeat a sequence number."""
        return self.rows - count(self.written)


class Ledger:
    """The ledger in a database. Methods block, and raise StoreError if the database fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note_replicas(self, statuses: Sequence[ReplicaStatus]) -> None:
        """Store statuses, which may come in any order and repeatedly."""
        insert = self._database.insert(ReplicaRow)
        new = insert.excluded
        is_over = col(ReplicaRow.state) != ReplicaState.RUNNING.value
        table = ReplicaRow.__table__.c
        columns = (table.decisions, table.settled, table.at)
        larger = {each.name: case((new[each.name] > each, new[each.name]), else_=each) for each in columns}
        statement = insert.on_conflict_do_update(
            index_elements=["replica"],
            set_={**larger, "state": case((is_over, col(ReplicaRow.state)), else_=new.state)},
        )
        with self._database.transaction("write replicas") as connection:
            for status in sorted(statuses, key=lambda each: each.replica):
                connection.execute(statement, status.model_dump(mode="json"))

    def accounts(self) -> list[Account]:
        """Return the account of every replica, by name."""
        found: dict[str, Account] = {}

        def account(replica: str) -> Account:
            return found.setdefault(replica, Account(replica))

        with self._database.transaction("count") as connection:
            # Every statement sees the database as it is now, whatever others remove meanwhile.
            is_sqlite = connection.dialect.name == "sqlite"
            connection.exec_driver_sql("BEGIN" if is_sqlite else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            for replica in connection.execute(select(ReplicaRow)):
                account(replica.replica).status = ReplicaStatus(**replica._mapping)
            for removed in connection.execute(select(RemovedRow)):
                account(removed.replica).removed.append(range(removed.first_seq, removed.last_seq + 1))
            for island in connection.execute(islands()):
                account(island.replica).rows += island.rows
                account(island.replica).written.append(range(island.first, island.last + 1))
        for each in found.values():
            each.removed = merged(each.removed)
        return [found[name] for name in sorted(found)]


def islands() -> Select[tuple[str, int, int, int]]:
    """Return a query for ranges of consecutive numbers: number minus rank is constant within one (gaps and islands)."""
    replica, seq = col(DecisionRow.replica), col(DecisionRow.seq)
    rank = func.dense_rank().over(partition_by=replica, order_by=seq)
    ranked = select(replica, seq, (seq - rank).label("island")).subquery()
    columns = (ranked.c.replica, func.min(ranked.c.seq).label("first"), func.max(ranked.c.seq).label("last"))
    grouped = select(*columns, func.count().label("rows")).group_by(ranked.c.replica, ranked.c.island)
    return grouped.order_by(ranked.c.replica, func.min(ranked.c.seq))
