"""A spool on the local disk, one SQLite file per replica. Its records outlive the process and wait for the stream."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import wraps
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from coe.base.errors import StoreError
from coe.base.whole_files import sync_path
from coe.decision_log.replica_status import MARK_NAME
from coe.fleet.processes.folder_lock import LOCK_NAME, FolderLock, holder_of

HIDDEN = "."
"""Prefix of the name of a spool's folder while it is created."""

FILE_NAME = "spool.db"
MARGIN_BYTES = 1024 * 1024
KEPT_BYTES = 1024 * 1024
"""Size of a fully sent file up to which it is reused; a larger one is deleted."""
PAGE_BYTES, USED_BYTES = 4096, 4088
BUSY_S = 10.0
ALL = "SELECT id, payload FROM records ORDER BY id"

CODES = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_CANTOPEN: errno.ENOENT, sqlite3.SQLITE_BUSY: errno.EBUSY}
PRIMARY_CODE = 0xFF  # of SQLite's codes, which say more in their other bits
P = ParamSpec("P")
T = TypeVar("T")


def in_turn(method: Callable[Concatenate[Spool, P], T]) -> Callable[Concatenate[Spool, P], T]:
    """Serialize a spool's calls from several threads."""

    @wraps(method)
    def run(self: Spool, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn:
            return method(self, *args, **kwargs)

    return run


class Spool:
    """The spool in one folder, for one owner.

    Threads take turns: a cancelled call may still run in its thread while another closes the file, and SQLite would
    crash.

    Args:
        folder: created if missing.
        max_bytes: approximate upper bound of the file's size.
        is_durable: what `write` accepted survives a power cut.
    """

    def __init__(self, folder: Path, *, max_bytes: int, is_durable: bool = False) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.pending = 0  # records not acknowledged
        self.size_bytes = 0  # of them
        self._synchronous = "FULL" if is_durable else "NORMAL"
        self._lock: FolderLock | None = None
        self._database: sqlite3.Connection | None = None
        self._sent = self._last = 0  # ids of the last record that was acknowledged, and that was written
        self._turn = RLock()
        self._read: list[tuple[int, int]] = []  # ids and sizes of the records that `read` gave

    def lacks_room(self) -> bool:
        """Return whether the spool or its disk has little more room than running requests need, or the disk fails."""
        margin = min(MARGIN_BYTES, self.max_bytes // 4)
        if self.max_bytes - self.size_bytes < margin:
            return True
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return True
        return disk.f_bavail * disk.f_frsize < margin

    @in_turn
    def open(self) -> None:
        """Lock the folder and take over what an earlier owner left in it.

        Raises:
            StoreError: another live process owns the folder.
            OSError: the folder or its file cannot be created or read.
        """
        self._lock = FolderLock.try_acquire(self.folder) if self.folder.exists() else self._create()
        if self._lock is None:
            raise StoreError(f"spool {self.folder} is in use by process {holder_of(self.folder)}")
        try:
            _ = self._file
            for folder in (self.folder, *self.folder.absolute().parents[:2]):
                sync_path(folder)  # SQLite does so for its own names
        except OSError:
            self._release()  # or no other could take over this spool while this process lives
            raise

    def _create(self) -> FolderLock | None:
        """Return the new folder's lock, taken before the folder is visible to replicas that look for leftovers."""
        staged = self.folder.with_name(f"{HIDDEN}{self.folder.name}")
        staged.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FolderLock.try_acquire(staged)
        if lock is not None:
            staged.rename(self.folder)
        return lock

    @property
    def _file(self) -> sqlite3.Connection:
        """The open file, opened if needed. It may raise OSError."""
        if self._database is None:
            if self._lock is None:
                raise OSError(errno.EBADF, f"spool {self.folder} is closed")
            path = self.folder / FILE_NAME
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # its log gets the same mode
            with translated_errors(), ExitStack() as opened:
                database = opened.enter_context(closing(connected(path)))
                for pragma in ("journal_mode=WAL", f"synchronous={self._synchronous}"):
                    database.execute(f"PRAGMA {pragma}")
                database.execute("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
                left = database.execute("SELECT id, length(payload) FROM records ORDER BY id").fetchall()
                opened.pop_all()
            self.pending, self.size_bytes = len(left), sum(size_of(length) for _, length in left)
            self._sent, self._last = 0, left[-1][0] if left else 0
            self._database = database
        return self._database

    @in_turn
    def write(self, payloads: Sequence[bytes]) -> int:
        """Append as many payloads as fit, in one transaction, and return how many: at least one.

        Raises:
            OSError: nothing was written. ENOSPC: disk or `max_bytes` is full. EFBIG: the first payload alone is larger
                than a
                quarter of `max_bytes`.
        """
        database = self._file  # opened anew it numbers records from 1
        room, taken = self.max_bytes - self.size_bytes, 0
        for payload in payloads:
            size = size_of(len(payload))
            if size > min(room, self.max_bytes // 4):
                break
            room -= size
            taken += 1
        if not taken:
            is_too_large = size_of(len(payloads[0])) > self.max_bytes // 4
            raise self._full(errno.EFBIG if is_too_large else errno.ENOSPC)
        rows = chain.from_iterable(enumerate(payloads[:taken], self._last + 1))
        with translated_errors():
            # One statement: the driver gives the interpreter away for each, to requests for as long as they want it.
            database.execute(f"INSERT INTO records VALUES {', '.join(['(?, ?)'] * taken)}", tuple(rows))
        self._last += taken
        self.pending += taken
        self.size_bytes = self.max_bytes - room
        return taken

    def _full(self, code: int = errno.ENOSPC) -> OSError:
        return OSError(code, f"{os.strerror(code)} (spool of at most {self.max_bytes} bytes)")

    @in_turn
    def read(self, max_records: int) -> list[bytes]:
        """Return the oldest unacknowledged payloads, at most `max_records`, until `acknowledge`; may raise OSError."""
        query = "SELECT id, payload FROM records WHERE id > ? ORDER BY id LIMIT ?"
        with translated_errors():
            rows = self._file.execute(query, (self._sent, max_records)).fetchall()
        self._read = [(number, size_of(len(payload))) for number, payload in rows]
        return [payload for _, payload in rows]

    @in_turn
    def acknowledge(self, count: int) -> None:
        """Delete the `count` oldest payloads, which `read` returned and which are now in the stream."""
        gone, self._read = self._read[:count], self._read[count:]
        self._sent = gone[-1][0]
        self.pending -= count
        self.size_bytes -= sum(size for _, size in gone)
        is_done = False
        with suppress(OSError):  # what was sent is sent again after a crash, which SQL ignores by decision id
            self._delete_sent()
            is_done = (self.folder / FILE_NAME).stat().st_size <= KEPT_BYTES
        if self._lock is not None and not self.pending and not is_done:
            # SQLite gives no room back by itself, and needs some in order to delete, which a full disk lacks.
            self._close_file()
            self._unlink()

    def _delete_sent(self) -> None:
        """Delete sent records; this need not survive a power cut. May raise OSError."""
        with translated_errors():
            self._file.execute("PRAGMA synchronous=NORMAL")
            try:
                self._file.execute("DELETE FROM records WHERE id <= ?", (self._sent,))
            finally:
                self._file.execute(f"PRAGMA synchronous={self._synchronous}")

    def _unlink(self) -> None:
        for name in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):  # whoever opens it meanwhile finds none
            (self.folder / name).unlink(missing_ok=True)

    @in_turn
    def close(self, *, must_stay: bool = False) -> None:
        """Release the folder, and delete it if everything was acknowledged, unless it `must_stay`."""
        self._close_file()
        if self._lock is not None and self.pending == 0 and not must_stay:
            self._delete()
        self._release()

    def _close_file(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _delete(self) -> None:
        """Delete the folder; what cannot be deleted stays, acknowledged, for the next owner."""
        with suppress(OSError):
            self._unlink()
            for name in (MARK_NAME, LOCK_NAME):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()


def size_of(length: int) -> int:
    """Return about how many bytes a payload of that length takes on disk; records share a page if they fit whole."""
    fit = USED_BYTES // (length + 12)
    return PAGE_BYTES // fit if fit else PAGE_BYTES * (1 + length // USED_BYTES)


def connected(path: Path, query: str = "mode=rw") -> sqlite3.Connection:
    """Open a connection to a spool's file; another process may have one too."""
    name = f"file:{quote(str(path.absolute()))}?{query}"
    return sqlite3.connect(name, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def spool_folders(root: Path) -> list[Path]:
    """Return the folders of spools, by name; empty if there is no `root`."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(HIDDEN))


def spooled_bytes(root: Path, *, without: str) -> int:
    """Return the bytes of every spool under `root` but that of replica `without`; owners may be at work."""
    total = 0
    for folder in spool_folders(root):
        for path in folder.glob(f"{FILE_NAME}*") if folder.name != without else ():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def unsent_payloads(folder: Path) -> list[bytes]:
    """Return the unacknowledged payloads of a spool, read-only, so that its owner may be at work; may raise OSError."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    # Without a log it has all, and SQLite need not make files beside it in order to share it.
    query = "mode=ro" if path.with_name(f"{FILE_NAME}-wal").exists() else "mode=ro&immutable=1"
    with translated_errors(), closing(connected(path, query)) as database:
        return [payload for _, payload in database.execute(ALL)]


def scrub(folder: Path) -> None:
    """Remove all traces of deleted records from a spool's files; its owner may be at work. May raise OSError."""
    path = folder / FILE_NAME
    if not path.exists():
        return
    with translated_errors(), closing(connected(path)) as database:
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):  # free pages may have what was sent
            database.execute(statement)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn SQLite's errors into OSError."""
    try:
        yield
    except sqlite3.Error as error:
        primary = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
        code = CODES.get(primary, errno.EIO)
        raise OSError(code, os.strerror(code)) from error
