from __future__ import annotations

import errno
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from coe.base.errors import StoreError
from coe.decision_log.spool import FILE_NAME, Spool, scrub, unsent_payloads
from coe.fleet.processes.folder_lock import FolderLock


def opened(folder: Path, **options: int) -> Spool:
    spool = Spool(folder, **{"max_bytes": 1_000_000, **options})
    spool.open()
    return spool


def read_all(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    while payloads := spool.read(3):
        found += payloads
        spool.acknowledge(len(payloads))
    return found


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{FILE_NAME}*") if not path.name.endswith("-shm"))


def test_reads_in_order_and_gives_back_the_room_of_what_is_acknowledged(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s", max_bytes=10_000_000)
    payloads = [f"payload-{i:03d}".encode() * 300 for i in range(900)]
    for payload in payloads:
        assert spool.write([payload]) == 1
    assert (spool.pending, disk_bytes(tmp_path / "s") > 3_000_000) == (900, True)
    assert read_all(spool) == payloads
    assert (spool.pending, spool.size_bytes) == (0, 0)
    spool.write([b"next"])
    assert disk_bytes(tmp_path / "s") < 100_000
    assert read_all(spool) == [b"next"]
    spool.close()
    assert not (tmp_path / "s").exists()


def test_the_next_owner_goes_on_behind_what_was_acknowledged(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write([b"a", b"b", b"c"])
    first.read(1)
    first.acknowledge(1)
    first.close()
    second = opened(tmp_path)
    assert second.pending == 2
    second.write([b"d"])
    assert read_all(second) == [b"b", b"c", b"d"]
    second.write([b"e"])
    assert unsent_payloads(tmp_path) == [b"e"]
    second.close()
    third = opened(tmp_path)
    assert read_all(third) == [b"e"]
    third.close()


@pytest.mark.parametrize("length", [40, 900, 1990, 2100, 3300, 9000])
def test_a_full_spool_refuses_and_takes_again_after_acknowledgement(tmp_path: Path, length: int) -> None:
    spool = opened(tmp_path, max_bytes=200_000)
    payloads = [f"{i:0{length}d}".encode() for i in range(5000)]
    written = spool.write(payloads)
    with pytest.raises(OSError, match="at most 200000 bytes") as caught:
        spool.write(payloads[written:])
    assert caught.value.errno == errno.ENOSPC
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        [pages] = database.execute("PRAGMA page_count").fetchone()
    assert 150_000 < 4096 * pages < 215_000
    assert read_all(spool) == payloads[:written]
    assert spool.write(payloads[written:]) > 0
    spool.close()


def test_a_record_larger_than_a_quarter_is_refused_as_such(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=40_000)
    with pytest.raises(OSError, match="File too large") as caught:
        spool.write([b"x" * 11_000])
    assert caught.value.errno == errno.EFBIG
    spool.close()


def test_a_write_that_the_disk_refuses_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    """SQLite's own bound on pages fails as a full disk does, in the middle of a transaction."""
    spool = opened(tmp_path)
    spool.write([b"before"])
    pages = spool._file.execute("PRAGMA page_count").fetchone()[0]
    spool._file.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(OSError, match="No space left on device") as caught:
        spool.write([b"lost" * 500] * 20)
    assert caught.value.errno == errno.ENOSPC
    assert (spool.pending, spool.read(9)) == (1, [b"before"])
    spool._file.execute("PRAGMA max_page_count=1000000")
    spool.write([b"after"])
    assert read_all(spool) == [b"before", b"after"]
    spool.close()


def test_what_cannot_be_deleted_is_only_sent_again_by_the_next_owner(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.write([b"a", b"b"])
    spool.read(1)
    spool._file.execute("PRAGMA query_only=ON")
    spool.acknowledge(1)
    assert spool.read(5) == [b"b"]
    spool._file.execute("PRAGMA query_only=OFF")
    spool.close()
    again = opened(tmp_path)
    assert again.read(5) == [b"a", b"b"]
    again.close()


def test_a_file_that_is_not_a_spool_is_an_error_of_the_disk_and_leaves_the_folder_free(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\0" * 5000)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            opened(tmp_path)


def test_another_process_scrubs_the_files_while_the_owner_is_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "100%?#"
    spool = opened(folder)
    spool.write([b"canary words", b"kept", b"kept too"])
    assert len(spool.read(3)) == 3
    spool.acknowledge(1)
    assert b"canary" in b"".join(path.read_bytes() for path in folder.iterdir())
    scrub(folder)
    assert b"canary" not in b"".join(path.read_bytes() for path in folder.iterdir())
    spool.write([b"next"])
    assert read_all(spool) == [b"kept", b"kept too", b"next"]
    spool.close()


def test_a_full_disk_takes_records_again_once_all_that_it_has_is_sent(tmp_path: Path) -> None:
    """SQLite itself deletes nothing from a full disk, for which a connection that may not write stands."""
    spool = opened(tmp_path)
    spool.write([b"a", b"b"])
    spool._file.execute("PRAGMA query_only=ON")
    spool.read(1)
    spool.acknowledge(1)
    with pytest.raises(OSError, match="Input/output"):
        spool.write([b"c"])
    spool.read(1)
    spool.acknowledge(1)
    assert [spool.write([payload]) for payload in (b"c", b"d", b"e")] == [1, 1, 1]
    assert (spool.pending, spool.read(5)) == (3, [b"c", b"d", b"e"])
    spool.close()
    again = opened(tmp_path)
    assert read_all(again) == [b"c", b"d", b"e"]
    again.close()


@pytest.mark.parametrize(("is_durable", "expected"), [(True, 2), (False, 1)])
def test_only_a_durable_spool_waits_for_the_disk_and_not_for_what_was_sent(
    tmp_path: Path, is_durable: bool, expected: int
) -> None:
    """2 is FULL: a commit returns when it outlives a power cut; 1 is NORMAL."""
    spool = opened(tmp_path, is_durable=is_durable)
    spool.write([b"a"])
    spool.read(1)
    spool.acknowledge(1)
    assert spool._file.execute("PRAGMA synchronous").fetchone() == (expected,)
    assert spool._file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    spool.close()


def test_read_repeats_until_acknowledged(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.write([b"a", b"b", b"c"])
    assert spool.read(2) == spool.read(2) == [b"a", b"b"]
    spool.acknowledge(1)
    assert spool.read(5) == [b"b", b"c"]
    assert spool.pending == 2
    spool.close()


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s")
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        opened(tmp_path / "s")
    spool.close()
    opened(tmp_path / "s").close()


def test_a_new_spool_is_locked_before_it_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another replica sweeps the spools of the dead: it must never find a young one without its owner's lock."""
    taken: list[FolderLock | None] = []
    rename = Path.rename

    def swept(self: Path, target: Path) -> Path:
        taken.append(FolderLock.try_acquire(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", swept)
    spool = Spool(tmp_path / "spool" / "young", max_bytes=1_000_000)
    spool.open()
    assert taken == [None]
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["young"]
    spool.close()


def test_a_call_that_was_cancelled_may_end_in_its_thread_after_the_spool_is_closed(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.write([b"a", b"b"])
    spool.read(2)
    spool.close()
    other = opened(tmp_path)
    spool.acknowledge(2)
    assert (other.read(2), unsent_payloads(tmp_path)) == ([b"a", b"b"], [b"a", b"b"])
    with pytest.raises(OSError, match="is closed"):
        spool.write([b"c"])
    other.close()


def test_closing_waits_for_the_call_that_runs_in_another_thread(tmp_path: Path) -> None:
    """Without that SQLite ends the process."""
    for number in range(50):
        spool = opened(tmp_path / str(number))
        spool.write([b"x"] * 100)
        spool.read(50)
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(spool.acknowledge, 50), threads.submit(spool.close)]
        assert [call.exception() for call in calls] == [None, None]
