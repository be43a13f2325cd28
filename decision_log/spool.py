"""An append-only spool on the local disk: what was written here outlives this process and waits for the stream."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from base.errors import StoreError
from base.whole_files import sync_path, write_all
from decision_log.replica_status import MARK_NAME
from decision_log.spool_files import (
    CHECKPOINT_NAME,
    HIDDEN,
    PROBE_NAME,
    SUFFIX,
    TEMPORARY_NAME,
    Position,
    read_checkpoint,
    segment_paths,
    sent_bytes,
    write_checkpoint,
)
from decision_log.spool_frames import HEADER, Frame, frame, scan
from fleet.folder_lock import LOCK_NAME, FolderLock, holder_of

SEGMENT_BYTES = 4 * 1024 * 1024
LOAD_BYTES = 1024 * 1024
MARGIN_BYTES = 1024 * 1024
PROBE_BYTES = 64 * 1024


class Spool:
    """The spool in one folder, for one owner; calls must not overlap (one thread, or one at a time).

    Args:
        folder: made when missing.
        max_bytes: upper bound of what lies in segments.
        segment_bytes: a segment is closed when it reaches this size; at most a quarter of `max_bytes` is used.
        is_durable: `sync` will be called; without it a segment may be closed before the kernel has written it.
    """

    def __init__(
        self, folder: Path, *, max_bytes: int, segment_bytes: int = SEGMENT_BYTES, is_durable: bool = False
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._is_durable = is_durable
        self.pending = 0  # records not acknowledged
        self.damaged = 0  # damaged stretches and torn tails met so far
        self._segment_bytes = min(segment_bytes, max_bytes // 4)
        self._lock: FolderLock | None = None
        self._sizes: dict[int, int] = {}  # segment -> bytes of whole frames, oldest first
        self._position = Position(0, 0)
        self._loaded: deque[Frame] = deque()  # their ends counted from `_loaded_from`
        self._loaded_from = 0
        self._descriptor: int | None = None
        self._next_segment = 0
        self._has_unsynced = False  # bytes of the open segment
        self._has_new_names = True  # files, or the folder itself, that a power cut could take back

    @property
    def _margin_bytes(self) -> int:
        return min(MARGIN_BYTES, self._segment_bytes)

    @property
    def size_bytes(self) -> int:
        """Bytes in segments, acknowledged ones that are not yet deleted included."""
        return sum(self._sizes.values())

    def lacks_room(self) -> bool:
        """Returns whether little more than what running requests will write finds room here, or on the disk as it says
        itself. True also where the disk does not answer."""
        if self.max_bytes - self.size_bytes < self._margin_bytes:
            return True
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return True
        return disk.f_bavail * disk.f_frsize < self._margin_bytes

    def probe(self) -> None:
        """Brings some bytes to the disk, as records are brought there, and takes them away again.

        Raises:
            OSError: the disk refuses them, or there is hardly room left in the spool.
        """
        if self.max_bytes - self.size_bytes < self._margin_bytes:
            raise self._full()
        path = self.folder / PROBE_NAME
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, bytes(PROBE_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def open(self) -> None:
        """Locks the folder and takes up what an earlier owner left in it.

        Raises:
            StoreError: another live process owns the folder.
            OSError: the folder cannot be made or read.
        """
        self._lock = FolderLock.try_acquire(self.folder) if self.folder.exists() else self._create()
        if self._lock is None:
            raise StoreError(f"spool {self.folder} is in use by process {holder_of(self.folder)}")
        try:
            self._recover()
        except OSError:
            self._lock.release()  # or no other could take over this spool while this process lives
            self._lock = None
            raise

    def _create(self) -> FolderLock | None:
        """The new folder, locked before it is seen: another replica that looks for leftovers would lock it first."""
        staged = self.folder.with_name(f"{HIDDEN}{self.folder.name}")
        staged.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FolderLock.try_acquire(staged)
        if lock is not None:
            staged.rename(self.folder)
        return lock

    def write(self, payloads: Sequence[bytes]) -> int:
        """Appends as many payloads as there is room for, as one write, and says how many: at least one.

        Raises:
            OSError: nothing was written and the spool is as before; ENOSPC when disk or `max_bytes` is full, EFBIG
                when the first payload alone is larger than a segment may be.
        """
        block = bytearray()
        room = self.max_bytes - self.size_bytes
        count = 0
        for payload in payloads:
            framed = frame(payload)
            if len(block) + len(framed) > min(room, self._segment_bytes):
                break
            block += framed
            count += 1
        if not count:
            too_large = len(payloads[0]) + HEADER.size > self._segment_bytes
            raise self._full(errno.EFBIG if too_large else errno.ENOSPC)
        self._append(bytes(block))
        self.pending += count
        return count

    def _full(self, code: int = errno.ENOSPC) -> OSError:
        return OSError(code, f"{os.strerror(code)} (spool of at most {self.max_bytes} bytes)")

    def sync(self) -> None:
        """Returns once everything written so far outlives a power cut.

        Raises:
            OSError: the disk refuses. What was written may be gone then, although it can still be read now.
        """
        if self._descriptor is not None and self._has_unsynced:
            try:
                os.fsync(self._descriptor)
            except OSError:
                self._close_segment()  # the kernel forgets which bytes failed: a second fsync would prove nothing
                raise
            finally:
                self._has_unsynced = False
        if self._has_new_names:
            for folder in (self.folder, *self.folder.absolute().parents[:2]):
                sync_path(folder)
            self._has_new_names = False

    def read(self, max_records: int) -> list[bytes]:
        """The oldest payloads not acknowledged, at most `max_records`; the same ones until `acknowledge` is called."""
        while not self._loaded and self._position.segment in self._sizes:
            if self._position.offset < self._sizes[self._position.segment]:
                self._load()
            elif not self._leave_segment():
                break
        if not self._loaded:
            self.pending = 0  # also where records were damaged on the disk after they were counted
        return [loaded.payload for loaded, _ in zip(self._loaded, range(max_records), strict=False)]

    def read_again(self, max_records: int) -> list[bytes]:
        """Reads the payloads of the last `read` again from the disk, where a record may have been erased meanwhile."""
        with self._path(self._position.segment).open("rb") as file:
            file.seek(self._loaded_from)
            data = file.read(self._loaded[-1].end)
        self._loaded = deque(Frame(data[end - len(payload) : end], end) for payload, end in self._loaded)
        return self.read(max_records)

    def acknowledge(self, count: int) -> None:
        """Marks the `count` oldest payloads, which `read` gave, as safely in the stream."""
        ends = [self._loaded.popleft().end for _ in range(count)]
        self._position = Position(self._position.segment, self._loaded_from + ends[-1])
        self.pending -= count
        if not self._loaded and self._position.offset >= self._sizes[self._position.segment]:
            self._leave_segment()
        try:
            write_checkpoint(self.folder, self._position)
        except OSError:
            # A full disk: after a crash some records would be sent again, which SQL ignores by decision id.
            return

    def close(self, *, must_stay: bool = False) -> None:
        """Releases the folder and deletes it when everything in it was acknowledged, unless it `must_stay`."""
        self._close_segment()
        if self._lock is None:
            return
        if self.pending == 0 and not must_stay:
            self._delete()
        self._lock.release()
        self._lock = None

    def _delete(self) -> None:
        """Deletes the folder; what cannot be deleted stays for the next owner, who finds it acknowledged."""
        with suppress(OSError):
            for path in segment_paths(self.folder):
                path.unlink()
            for name in (CHECKPOINT_NAME, TEMPORARY_NAME, MARK_NAME, PROBE_NAME, LOCK_NAME):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:012d}{SUFFIX}"

    def _recover(self) -> None:
        """Counts what is pending and cuts torn tails."""
        checkpoint = read_checkpoint(self.folder)
        self._next_segment = checkpoint.segment + 1  # a number is never used again, or its records would be skipped
        for path in segment_paths(self.folder):
            segment = int(path.stem)
            self._next_segment = max(self._next_segment, segment + 1)
            data = path.read_bytes()
            found = scan(data)
            if found.end < len(data):
                os.truncate(path, found.end)
                self.damaged += 1
            ends = [intact.end for intact in found.frames]
            start = sent_bytes(checkpoint, segment, is_oldest=not self._sizes, ends=ends)
            if not self._sizes:
                self._position = Position(segment, start)
            self._sizes[segment] = found.end
            self.pending += sum(1 for end in ends if end > start)
        if not self._sizes:
            self._position = Position(self._next_segment, 0)

    def _append(self, block: bytes) -> None:
        if self._descriptor is not None and self._sizes[self._next_segment - 1] + len(block) > self._segment_bytes:
            if self._is_durable:
                self.sync()
            self._close_segment()
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path(self._next_segment), flags, 0o600)
            self._sizes[self._next_segment] = 0
            self._next_segment += 1
            self._has_new_names = True
        segment = self._next_segment - 1
        self._has_unsynced = True
        try:
            write_all(self._descriptor, block)
        except OSError:
            self._undo(segment)
            raise
        self._sizes[segment] += len(block)

    def _undo(self, segment: int) -> None:
        """Cuts half a write off again; where even that fails, the segment takes no more and recovery will cut it."""
        try:
            os.truncate(self._path(segment), self._sizes[segment])
        except OSError:
            self._close_segment()

    def _close_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _load(self) -> None:
        """Reads the next frames of the position's segment, or steps over a stretch that holds none."""
        segment, start = self._position
        limit = self._sizes[segment]
        wanted = LOAD_BYTES
        while True:
            with self._path(segment).open("rb") as file:
                file.seek(start)
                data = file.read(min(wanted, limit - start))
            found = scan(data)
            if found.frames or start + len(data) >= limit:
                break
            wanted *= 2
        self.damaged += found.damaged
        self._loaded.extend(found.frames)
        self._loaded_from = start
        if not found.frames:
            self.damaged += 1
            self._position = Position(segment, limit)

    def _leave_segment(self) -> bool:
        """Moves on from a segment that is read to its end and deletes it; False while it is still written to."""
        segment = self._position.segment
        if self._descriptor is not None and segment == self._next_segment - 1:
            return False
        del self._sizes[segment]
        self._path(segment).unlink(missing_ok=True)
        self._position = Position(next(iter(self._sizes), self._next_segment), 0)
        return True
