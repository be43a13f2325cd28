"""The lease to retrain: one at a time among all that share a database, and none that has expired promotes."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, select
from sqlmodel import col

from coe.base.errors import DataError, StoreError
from coe.decision_log import sql_engine
from coe.decision_log.database import Database
from coe.decision_log.tables.log import RetrainTurnRow
from coe.training.retrain_lock import LeaseHeldError, Leases, LockLostError
from tests.waiting import wait_until

HOLDER = """
import sys
from pathlib import Path
from coe.training.retrain_lock import LeaseHeldError, Leases, LockLostError
url, promoted, expires_s = sys.argv[1], Path(sys.argv[2]) / "promoted", float(sys.argv[3])
try:
    with Leases(url, expires_s).acquire() as lease:
        print("holding", lease.number, flush=True)
        sys.stdin.readline()
        with lease.promotion():
            promoted.write_text(f"lease {lease.number}")
        print("promoted", flush=True)
except (LeaseHeldError, LockLostError) as error:
    print("refused:", error, flush=True)
"""


@pytest.fixture
def url(store: Database, database_url: str) -> str:
    """A log, on SQLite and on Postgres."""
    return database_url


@contextmanager
def holder(url: str, folder: Path, expires_s: float = 60.0) -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lease, and promotes into its own folder on request."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", HOLDER, url, str(folder), str(expires_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def until_of(url: str) -> float:
    database = Database(url)
    try:
        return float(database.rows("read turns", select(col(RetrainTurnRow.until)))[0].until)
    finally:
        database.close()


def test_of_two_hosts_one_retrains_and_a_killed_one_is_replaced(url: str, tmp_path: Path) -> None:
    """Two processes, each with a data folder of its own: all that they share is the database."""
    with holder(url, tmp_path / "one", expires_s=3.0) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding 1\n"
        with holder(url, tmp_path / "two") as second:
            assert "refused: another process that uses this database" in second.communicate()[0]
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL

    def next_one() -> bool:
        with holder(url, tmp_path / "two") as second:
            return second.communicate("\n")[0] == "holding 2\npromoted\n"

    wait_until(next_one)
    assert (tmp_path / "two" / "promoted").read_text() == "lease 2"
    assert not (tmp_path / "one" / "promoted").exists()


def test_a_paused_holder_whose_lease_expired_cannot_promote(url: str, tmp_path: Path) -> None:
    with holder(url, tmp_path, expires_s=0.3) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "holding 1\n"
        os.kill(first.pid, signal.SIGSTOP)

        def taken() -> bool:
            try:
                with Leases(url).acquire() as lease, lease.promotion():
                    (tmp_path / "promoted").write_text("by the second one")
            except LeaseHeldError:
                return False
            return True

        wait_until(taken)
        os.kill(first.pid, signal.SIGCONT)
        said, _ = first.communicate("\n")
    assert said == "refused: lease 1 to retrain has expired: lease 2 has begun, so nothing was promoted\n"
    assert (tmp_path / "promoted").read_text() == "by the second one"


def test_a_lease_lives_as_long_as_its_holder_works_and_ends_with_it(url: str) -> None:
    with Leases(url, expires_s=6).acquire() as lease:
        seen = {until_of(url)}

        def was_renewed() -> bool:
            seen.add(until_of(url))
            return len(seen) > 2

        wait_until(was_renewed)
        with pytest.raises(LeaseHeldError), Leases(url).acquire():
            pass
        with lease.promotion():
            pass
    with Leases(url).acquire() as following:
        assert following.number == 2


def test_no_lease_begins_during_a_promotion(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Leases(url, expires_s=-1.0).acquire() as lease, lease.promotion():
        monkeypatch.setattr(sql_engine, "BUSY_TIMEOUT_MS", 50)
        impatient = url if url.startswith("sqlite") else f"{url}&options=-c%20lock_timeout%3D50"
        with pytest.raises(StoreError, match="lock"), Leases(impatient).acquire():
            pass


def test_leases_that_begin_at_once_get_different_numbers(url: str) -> None:
    def number(_: int) -> int:
        with Leases(url, expires_s=-1.0).acquire() as lease:
            return lease.number

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(number, range(24))) == list(range(1, 25))


def test_a_lease_whose_row_is_gone_cannot_promote(url: str, store: Database) -> None:
    """As after a database was put back to before it."""
    with Leases(url).acquire() as lease:
        store.change("lose leases", delete(RetrainTurnRow))
        with pytest.raises(LockLostError, match="lease None has begun"), lease.promotion():
            pass


def test_a_log_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no decision log"), Leases(f"sqlite:///{tmp_path}/coe.db").acquire():
        pass
