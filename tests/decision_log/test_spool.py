from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import StoreError
from decision_log import spool as spool_module
from decision_log.leftovers import unsent_payloads
from decision_log.spool import Spool
from decision_log.spool_files import Position, read_checkpoint, segment_paths, write_checkpoint
from decision_log.spool_frames import frame, scan
from fleet.folder_lock import FolderLock

PAYLOADS = st.lists(st.text(max_size=40).map(str.encode), min_size=1, max_size=8)


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


@given(PAYLOADS, st.data())
def test_truncation_at_any_byte_loses_only_the_tail(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(map(frame, payloads))
    cut = data.draw(st.integers(0, len(whole)))
    found = scan(whole[:cut])
    kept = [intact.payload for intact in found.frames]
    ends = [sum(len(frame(p)) for p in payloads[: i + 1]) for i in range(len(payloads))]
    assert kept == payloads[: sum(end <= cut for end in ends)]
    assert found.end == max([end for end in ends if end <= cut], default=0)
    assert found.damaged == 0


@given(PAYLOADS, st.data())
def test_any_flipped_bit_loses_exactly_the_record_it_is_in(payloads: list[bytes], data: st.DataObject) -> None:
    framed = [frame(payload) for payload in payloads]
    victim = data.draw(st.integers(0, len(payloads) - 1))
    at = data.draw(st.integers(0, len(framed[victim]) - 1))
    flipped = bytearray(framed[victim])
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    whole = b"".join([*framed[:victim], bytes(flipped), *framed[victim + 1 :]])
    found = scan(whole)
    assert [intact.payload for intact in found.frames] == payloads[:victim] + payloads[victim + 1 :]
    assert found.damaged == 1 or found.end < len(whole)


def test_reads_in_order_across_segments_and_deletes_what_is_acknowledged(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s", segment_bytes=200)
    payloads = [f"payload-{i:03d}".encode() for i in range(60)]
    for payload in payloads:
        assert spool.write([payload]) == 1
    assert len(segment_paths(spool.folder)) > 5
    assert spool.pending == 60
    assert read_all(spool) == payloads
    assert spool.pending == 0
    assert len(segment_paths(spool.folder)) <= 1
    spool.close()
    assert not (tmp_path / "s").exists()


def test_read_repeats_until_acknowledged(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.write([b"a", b"b", b"c"])
    assert spool.read(2) == spool.read(2) == [b"a", b"b"]
    spool.acknowledge(1)
    assert spool.read(5) == [b"b", b"c"]
    assert spool.pending == 2
    spool.close()


def test_next_owner_goes_on_behind_the_checkpoint_and_reuses_no_segment_number(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.write([b"a", b"b", b"c"])
    first.read(1)
    first.acknowledge(1)
    first.close()
    second = opened(tmp_path)
    assert second.pending == 2
    second.write([b"d"])
    assert read_all(second) == [b"b", b"c", b"d"]
    last = read_checkpoint(tmp_path).segment
    second.write([b"e"])
    second.close()
    third = opened(tmp_path)
    assert read_all(third) == [b"e"]
    assert read_checkpoint(tmp_path).segment >= last
    third.close()


def test_recovery_cuts_the_torn_tail(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.write([b"kept"])
    spool.close()
    path = segment_paths(tmp_path)[0]
    whole = path.read_bytes()
    path.write_bytes(whole + frame(b"torn")[:-1])
    recovered = opened(tmp_path)
    assert path.read_bytes() == whole
    assert (recovered.pending, recovered.damaged) == (1, 1)
    assert read_all(recovered) == [b"kept"]
    recovered.close()


def test_damage_between_records_is_counted_and_stepped_over(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.write([b"one", b"two", b"three"])
    path = segment_paths(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"two")] ^= 1
    path.write_bytes(data)
    assert read_all(spool) == [b"one", b"three"]
    assert (spool.damaged, spool.pending) == (1, 0)
    spool.close()


def test_a_segment_without_one_intact_record_does_not_stop_the_spool(tmp_path: Path) -> None:
    spool = opened(tmp_path, segment_bytes=64)
    spool.write([b"x" * 50])
    segment_paths(tmp_path)[0].write_bytes(b"\0" * 60)
    spool.write([b"next"])
    assert read_all(spool) == [b"next"]
    assert spool.damaged == 1
    spool.close()


def test_a_record_larger_than_one_load_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "LOAD_BYTES", 64)
    spool = opened(tmp_path)
    payloads = [b"s", b"L" * 1000, b"t"]
    spool.write(payloads)
    assert read_all(spool) == payloads
    assert spool.damaged == 0
    spool.close()


def test_full_spool_refuses_and_takes_again_after_acknowledgement(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=400)
    payloads = [f"{i:040d}".encode() for i in range(20)]
    written = 0
    while spool.size_bytes + len(frame(payloads[written])) <= 400:
        written += spool.write([payloads[written]])
    with pytest.raises(OSError, match="at most 400 bytes") as caught:
        spool.write([payloads[written]])
    assert caught.value.errno == errno.ENOSPC
    assert 0 < written < 20
    assert spool.size_bytes <= 400
    assert read_all(spool) == payloads[:written]
    assert spool.write([payloads[written]]) == 1
    spool.close()


def test_a_record_larger_than_a_segment_is_refused_as_such(tmp_path: Path) -> None:
    spool = opened(tmp_path, max_bytes=400)
    with pytest.raises(OSError, match="File too large") as caught:
        spool.write([b"x" * 200])
    assert caught.value.errno == errno.EFBIG
    spool.close()


def test_half_a_write_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    spool.write([b"before"])
    real_write = os.write

    def half_write(descriptor: int, block: bytes) -> int:
        if len(block) < 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real_write(descriptor, block[: len(block) // 2])

    monkeypatch.setattr(os, "write", half_write)
    with pytest.raises(OSError, match="No space"):
        spool.write([b"lost" * 10])
    monkeypatch.undo()
    assert segment_paths(tmp_path)[0].read_bytes() == frame(b"before")
    spool.write([b"after"])
    assert read_all(spool) == [b"before", b"after"]
    assert spool.damaged == 0
    spool.close()


def test_a_checkpoint_that_cannot_be_written_only_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, position: Position) -> None:
        raise OSError(errno.ENOSPC, "full")

    spool = opened(tmp_path)
    spool.write([b"a", b"b"])
    monkeypatch.setattr(spool_module, "write_checkpoint", refuse)
    spool.read(1)
    spool.acknowledge(1)
    assert spool.read(5) == [b"b"]
    spool.close()
    again = opened(tmp_path)
    assert again.read(5) == [b"a", b"b"]
    again.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"segment": "x", "offset": 1}'])
def test_an_unreadable_checkpoint_means_the_beginning(tmp_path: Path, text: str) -> None:
    write_checkpoint(tmp_path, Position(3, 4))
    assert read_checkpoint(tmp_path) == Position(3, 4)
    (tmp_path / "checkpoint.json").write_text(text)
    assert read_checkpoint(tmp_path) == Position(0, 0)


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    spool = opened(tmp_path / "s")
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        opened(tmp_path / "s")
    spool.close()
    opened(tmp_path / "s").close()


def synced_inodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Inodes of the files and folders that fsync is called for, from now on."""
    inodes: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: inodes.append(os.fstat(descriptor).st_ino))
    return inodes


def test_sync_forces_bytes_and_new_names_to_the_disk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inodes = synced_inodes(monkeypatch)
    spool = opened(tmp_path / "s", is_durable=True)
    spool.write([b"a"])
    assert inodes == []
    spool.sync()
    [segment] = segment_paths(tmp_path / "s")
    assert inodes[:3] == [path.stat().st_ino for path in (segment, tmp_path / "s", tmp_path)]
    inodes.clear()
    spool.sync()
    assert inodes == []
    spool.write([b"b"])
    spool.sync()
    assert inodes == [segment.stat().st_ino]
    spool.close()


def test_a_full_segment_is_synced_before_it_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inodes = synced_inodes(monkeypatch)
    spool = opened(tmp_path / "s", segment_bytes=20, is_durable=True)
    spool.write([b"0123456789"])
    spool.write([b"0123456789"])
    first, second = segment_paths(tmp_path / "s")
    assert first.stat().st_ino in inodes
    assert second.stat().st_ino not in inodes
    spool.sync()
    assert second.stat().st_ino in inodes
    spool.close()


def test_after_an_fsync_that_failed_a_new_segment_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path / "s", is_durable=True)
    spool.write([b"a"])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken_fsync)
        with pytest.raises(OSError, match="Input/output"):
            spool.sync()
    spool.write([b"b"])
    spool.sync()
    assert len(segment_paths(tmp_path / "s")) == 2
    assert read_all(spool) == [b"a", b"b"]
    spool.close()


def broken_fsync(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


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


def spool_left_with(folder: Path, count: int, acknowledged: int) -> list[bytes]:
    """A spool of several segments whose owner is gone; its payloads."""
    spool = opened(folder, segment_bytes=200)
    payloads = [f"payload-{i:03d}".encode() for i in range(count)]
    for payload in payloads:
        spool.write([payload])
    for _ in range(acknowledged):
        spool.acknowledge(len(spool.read(1)))
    spool.close()
    return payloads


@pytest.mark.parametrize(
    "position",
    [Position(10**6, 0), Position(10**30, 0), Position(1, 0), Position(3, 77), Position(0, 10**9), Position(-1, -5)],
)
def test_no_checkpoint_deletes_what_was_not_sent(tmp_path: Path, position: Position) -> None:
    payloads = spool_left_with(tmp_path, 60, acknowledged=2)
    write_checkpoint(tmp_path, position)  # with its right checksum, and past the segments or inside a record
    assert list(unsent_payloads(tmp_path)) == payloads
    spool = opened(tmp_path)
    assert spool.pending == 60
    assert read_all(spool) == payloads
    spool.close()


@given(st.integers(0, 10**9), st.data())
def test_a_changed_checkpoint_is_not_believed(segment: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), Position(segment, data.draw(st.integers(0, 10**9))))
        path = Path(name) / "checkpoint.json"
        written = path.read_text()
        place = data.draw(st.sampled_from([at for at, char in enumerate(written) if char.isdigit()]))
        other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != written[place]]))
        path.write_text(written[:place] + other + written[place + 1 :])
        assert read_checkpoint(Path(name)) == Position(0, 0)


def test_a_checkpoint_without_checksum_repeats(tmp_path: Path) -> None:
    payloads = spool_left_with(tmp_path, 180, acknowledged=5)
    (tmp_path / "checkpoint.json").write_text('{"segment": 999999, "offset": 0}')
    spool = opened(tmp_path)
    assert read_all(spool) == payloads
    spool.close()


def test_a_segment_that_a_power_cut_brought_back_is_sent_again(tmp_path: Path) -> None:
    payloads = spool_left_with(tmp_path, 12, acknowledged=0)
    first = segment_paths(tmp_path)[0]
    data = first.read_bytes()
    spool = opened(tmp_path)
    while first.exists():
        spool.read(1)
        spool.acknowledge(1)
    spool.read(1)
    spool.acknowledge(1)
    spool.close()
    first.write_bytes(data)
    assert list(unsent_payloads(tmp_path)) == payloads
    again = opened(tmp_path)
    assert again.pending == len(payloads)
    assert read_all(again) == payloads
    again.close()
