"""The lease to retrain: one process at a time among all that share the log's database.

The holder renews its lease, so a crash never blocks the others for long. But a lease proves nothing: its holder may
pause for minutes (a paused machine, a full disk) and then continue unaware. So every lease has a number that only
rises, and a promotion happens while the database prevents the next lease (fencing tokens, Kleppmann 2016). If clocks of
hosts differ, a lease begins too early or late, and promotes no less exclusively.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select, update
from sqlmodel import col

from coe.base.errors import RouterError, StoreError
from coe.decision_log.schema import upgrade
from coe.decision_log.sql_engine import close_engine, hold, open_engine, open_log, translated_errors
from coe.decision_log.tables.log import RetrainTurnRow

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

EXPIRES_S = 60.0
LOCK_NUMBER = 0x636F6572  # "coer", for Postgres's advisory locks


class LeaseHeldError(RouterError):
    """Another process retrains now, or did a moment ago; the message says which."""


class LockLostError(RouterError):
    """Another process has taken the lease to retrain since, so this one may not promote."""


@dataclass(frozen=True)
class Lease:
    """A lease to retrain over a database."""

    number: int
    engine: Engine

    @contextmanager
    def promotion(self) -> Iterator[None]:
        """Hold the lock for a promotion, so that no lease can begin meanwhile; raise LockLostError if another one
        has."""
        with locked(self.engine, "promote a router under the lease of") as connection:
            last = connection.execute(select(col(RetrainTurnRow.number))).scalar()
            if last != self.number:
                raise LockLostError(
                    f"lease {self.number} to retrain has expired: lease {last} has begun, so nothing was promoted"
                )
            yield

    @contextmanager
    def renewed(self, expires_s: float) -> Iterator[None]:
        """Renew the lease three times in its life while a block runs, in a thread, as fitting takes minutes. End it
        afterwards."""
        is_over = threading.Event()

        def renew() -> None:
            while not is_over.wait(expires_s / 3):
                self._keep_until(time.time() + expires_s)

        thread = threading.Thread(target=renew, name="retrain-lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            self._keep_until(0.0)

    def _keep_until(self, until: float) -> None:
        mine = update(RetrainTurnRow).where(col(RetrainTurnRow.number) == self.number).values(until=until)
        # One renewal may fail; when all do, the lease is lost. While the database is away, it expires on its own.
        with suppress(StoreError), translated_errors("renew the lease in"), self.engine.begin() as connection:
            connection.execute(mine)


@dataclass(frozen=True)
class Leases:
    """The leases of the processes that use one database."""

    database_url: str
    expires_s: float = EXPIRES_S

    @contextmanager
    def acquire(self) -> Iterator[Lease]:
        """Hold a lease while the block runs.

        Raises:
            LeaseHeldError: another process holds it.
            DataError: there is no log yet.
            StoreError: the database cannot be reached.
        """
        with open_log(self.database_url):
            engine = open_engine(self.database_url)
        try:
            with translated_errors("open"):
                upgrade(engine)
            lease = Lease(begin(engine, self.expires_s), engine)
            with lease.renewed(self.expires_s):
                yield lease
        finally:
            close_engine(engine)


def begin(engine: Engine, expires_s: float) -> int:
    """Begin the next lease, which shuts out every earlier one; return its number. Raise LeaseHeldError if one is
    held."""
    with locked(engine, "take the lease to retrain in") as connection:
        last = connection.execute(select(RetrainTurnRow)).one_or_none()
        now = time.time()
        if last is not None and last.until > now:
            raise LeaseHeldError(
                f"another process that uses this database is retraining, or was killed in the last {expires_s:.0f} s"
            )
        following = 1 if last is None else last.number + 1
        connection.execute(delete(RetrainTurnRow))
        connection.execute(insert(RetrainTurnRow).values(number=following, until=now + expires_s))
        return following


@contextmanager
def locked(engine: Engine, action: str) -> Iterator[Connection]:
    """Open a transaction that excludes others of its kind, as `hold` does."""
    with translated_errors(action), engine.begin() as connection:
        hold(connection, LOCK_NUMBER)
        yield connection
