"""A file is replaced as a whole, with its permissions, and a lock waits for its holder."""

from __future__ import annotations

import threading
from pathlib import Path

from base.whole_files import locked, write_whole


def test_a_written_file_has_its_text_and_permissions_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "live.json"
    write_whole(file, "old", mode=0o640)
    write_whole(file, "new", mode=0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "new folder" / "lock", [0], [0]

    def count() -> None:
        for _ in range(200):
            with locked(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
