from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gateway.decision_log.life import MARK_NAME, DecisionCount, Life, LifeState, read_life


def test_the_count_in_the_file_is_exact_at_any_time(tmp_path: Path) -> None:
    numbered = DecisionCount()
    numbered.note(4)
    numbered.open(tmp_path)
    for seq in (0, 5, 7, 6):
        numbered.note(seq)
        life = read_life(tmp_path, is_alive=True, at=1.0)
        assert life == Life(replica=tmp_path.name, decisions=numbered.value, state=LifeState.RUNNING, at=1.0)
    assert numbered.value == 8
    numbered.close()


def test_a_life_that_ended_in_order_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    numbered = DecisionCount()
    numbered.open(tmp_path)
    numbered.note(0)
    killed = read_life(tmp_path, is_alive=False, at=0.0)
    numbered.close()
    ended = read_life(tmp_path, is_alive=False, at=0.0)
    assert killed is not None
    assert ended is not None
    assert (killed.state, ended.state) == (LifeState.KILLED, LifeState.ENDED)
    assert killed.decisions == ended.decisions == 1


@pytest.mark.parametrize("content", [b"", b"short"])
def test_no_count_no_life(tmp_path: Path, content: bytes) -> None:
    assert read_life(tmp_path, is_alive=False, at=0.0) is None
    (tmp_path / MARK_NAME).write_bytes(content)
    assert read_life(tmp_path, is_alive=False, at=0.0) is None


def test_a_disk_that_refuses_hurts_nobody_and_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "refused")

    numbered = DecisionCount()
    numbered.open(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        numbered.note(0)
    numbered.note(1)
    life = read_life(tmp_path, is_alive=True, at=0.0)
    assert life is not None
    assert life.decisions == 2
    numbered.close()
