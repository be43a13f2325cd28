"""A file is replaced as a whole, with its permissions, and a lock has one holder."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from coe.base.whole_files import locked, write_whole


def test_a_written_file_has_its_text_and_permissions_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "live.json"
    write_whole(file, "old", mode=0o640)
    write_whole(file, "new", mode=0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_lock_is_held_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "lock"
    with locked(path), path.open("ab") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
