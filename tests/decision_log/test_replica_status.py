from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from coe.decision_log.replica_status import MARK_NAME, DecisionCount, ReplicaState, ReplicaStatus, read_status


def read(folder: Path, *, is_alive: bool = False) -> ReplicaStatus:
    status = read_status(folder, is_alive=is_alive, at=1.0)
    assert status is not None
    return status


def test_the_file_is_exact_at_any_time(tmp_path: Path) -> None:
    numbered = DecisionCount()
    assert numbered.take() == 0
    numbered.open(tmp_path)
    for seq in range(1, 5):
        assert numbered.take() == seq
        status = read(tmp_path, is_alive=True)
        assert status == ReplicaStatus(
            replica=tmp_path.name, decisions=seq + 1, settled=0, state=ReplicaState.RUNNING, at=1.0
        )
    for seqs, settled in (([1, 2], 0), ([0], 3), ([4, 3], 5)):
        numbered.settle(seqs)
        assert (read(tmp_path).settled, numbered.settled) == (settled, settled)
    numbered.close()


def test_when_answers_wait_only_what_is_safe_counts(tmp_path: Path) -> None:
    numbered = DecisionCount(is_durable=True)
    numbered.open(tmp_path)
    assert [numbered.take(), numbered.take(), numbered.take()] == [0, 1, 2]
    assert read(tmp_path).decisions == 0
    numbered.note(1)
    numbered.settle([0, 1])
    assert (read(tmp_path).decisions, read(tmp_path).settled) == (2, 2)
    numbered.close()


def test_a_life_that_ended_in_order_is_told_from_one_that_was_killed(tmp_path: Path) -> None:
    numbered = DecisionCount()
    numbered.open(tmp_path)
    numbered.take()
    killed = read(tmp_path)
    numbered.close()
    ended = read(tmp_path)
    assert (killed.state, ended.state) == (ReplicaState.KILLED, ReplicaState.ENDED)
    assert killed.decisions == ended.decisions == 1


@pytest.mark.parametrize("content", [b"", b"short"])
def test_no_count_no_status(tmp_path: Path, content: bytes) -> None:
    assert read_status(tmp_path, is_alive=False, at=0.0) is None
    (tmp_path / MARK_NAME).write_bytes(content)
    assert read_status(tmp_path, is_alive=False, at=0.0) is None


def test_a_disk_that_refuses_hurts_nobody_and_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EIO, "refused")

    numbered = DecisionCount()
    numbered.open(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", refuse)
        numbered.take()
    numbered.take()
    assert read(tmp_path).decisions == 2
    numbered.close()
