"""A spool on the local disk, one SQLite file for each replica: what was written here outlives this process and waits
for the stream."""

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
"""Begins the name of a spool's folder that is being made."""

FILE_NAME = "spool.db"
MARGIN_BYTES = 1024 * 1024
KEPT_BYTES = 1024 * 1024
"""Size up to which a file of which all was sent goes on."""
PAGE_BYTES, USED_BYTES = 4096, 4088
BUSY_S = 10.0
ALL = "SELECT id, payload FROM records ORDER BY id"

CODES = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_CANTOPEN: errno.ENOENT, sqlite3.SQLITE_BUSY: errno.EBUSY}
PRIMARY_CODE = 0xFF  # of SQLite's codes, which say more in their other bits
P = ParamSpec("P")
T = TypeVar("T")


def in_turn(method: Callable[Concatenate[Spool, P], T]) -> Callable[Concatenate[Spool, P], T]:
    """Has calls of a spool from several threads wait for each other."""

    @wraps(method)
    def run(self: Spool, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn:
            return method(self, *args, **kwargs)

    return run


class Spool:
    """The spool in one folder, for one owner. Threads take turns: a call that was cancelled may still run in its thread
    while another closes the file, and SQLite does not survive that.

    Args:
        folder: made when missing.
        max_bytes: upper bound of what lies in the file, about.
        is_durable: what `write` has taken outlives a power cut.
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
        """Returns whether little more than what running requests will write finds room here, or on the disk as it says
        itself. True also where the disk does not answer."""
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
        """Locks the folder and takes up what an earlier owner left in it.

        Raises:
            StoreError: another live process owns the folder.
            OSError: the folder or its file cannot be made or read.
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
        """The new folder, locked before it is seen: another replica that looks for leftovers would lock it first."""
        staged = self.folder.with_name(f"{HIDDEN}{self.folder.name}")
        staged.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FolderLock.try_acquire(staged)
        if lock is not None:
            staged.rename(self.folder)
        return lock

    @property
    def _file(self) -> sqlite3.Connection:
        """Opened where it is not. Raises OSError."""
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
        """Appends as many payloads as there is room for, in one transaction, and says how many: at least one.

        Raises:
            OSError: nothing was written and the spool is as before; ENOSPC when disk or `max_bytes` is full, EFBIG
                when the first payload alone is larger than a quarter of `max_bytes`.
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
        """The oldest payloads not acknowledged, at most `max_records`; the same ones until `acknowledge` is called.
        Raises OSError."""
        query = "SELECT id, payload FROM records WHERE id > ? ORDER BY id LIMIT ?"
        with translated_errors():
            rows = self._file.execute(query, (self._sent, max_records)).fetchall()
        self._read = [(number, size_of(len(payload))) for number, payload in rows]
        return [payload for _, payload in rows]

    @in_turn
    def acknowledge(self, count: int) -> None:
        """Forgets the `count` oldest payloads, which `read` gave: they are safely in the stream."""
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
        """Makes room of what was sent, which need not outlive a power cut. Raises OSError."""
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
        """Releases the folder and deletes it when everything in it was acknowledged, unless it `must_stay`."""
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
        """Deletes the folder; what cannot be deleted stays for the next owner, who finds it acknowledged."""
        with suppress(OSError):
            self._unlink()
            for name in (MARK_NAME, LOCK_NAME):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()


def size_of(length: int) -> int:
    """Bytes on the disk of a payload of that length, about: records share a page as far as they fit as a whole."""
    fit = USED_BYTES // (length + 12)
    return PAGE_BYTES // fit if fit else PAGE_BYTES * (1 + length // USED_BYTES)


def connected(path: Path, query: str = "mode=rw") -> sqlite3.Connection:
    """A connection to the file of a spool; another process may have one, too."""
    name = f"file:{quote(str(path.absolute()))}?{query}"
    return sqlite3.connect(name, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)


def spool_folders(root: Path) -> list[Path]:
    """Folders of spools, by name; empty when there is no `root`."""
    if not root.is_dir():
        return []
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(HIDDEN))


def spooled_bytes(root: Path, *, without: str) -> int:
    """Bytes of every spool under `root` but that of replica `without`; owners may be at work."""
    total = 0
    for folder in spool_folders(root):
        for path in folder.glob(f"{FILE_NAME}*") if folder.name != without else ():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
    return total


def unsent_payloads(folder: Path) -> list[bytes]:
    """Payloads in a spool that are not acknowledged. Reads only, so its owner may be at work. Raises OSError."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    # Without a log it has all, and SQLite need not make files beside it in order to share it.
    query = "mode=ro" if path.with_name(f"{FILE_NAME}-wal").exists() else "mode=ro&immutable=1"
    with translated_errors(), closing(connected(path, query)) as database:
        return [payload for _, payload in database.execute(ALL)]


def scrub(folder: Path) -> None:
    """Leaves nothing of what was deleted in the files of a spool. Its owner may be at work. Raises OSError."""
    path = folder / FILE_NAME
    if not path.exists():
        return
    with translated_errors(), closing(connected(path)) as database:
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):  # free pages may have what was sent
            database.execute(statement)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Makes an OSError of an error of SQLite's."""
    try:
        yield
    except sqlite3.Error as error:
        primary = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
        code = CODES.get(primary, errno.EIO)
        raise OSError(code, os.strerror(code)) from error
