"""`coe config apply` says what each gateway that runs has made of a change."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gateway import config_commands as commands
from gateway.changes.confirmations import GATEWAYS, Confirmation, Confirmed, running, wait_for
from gateway.changes.history import History, InForce

FOUND = InForce(number=4, change=7, started=1, file_hash="", at="", by="ann")
PROCESS = f"gateway process {os.getpid()}: "


def told(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    status = commands.tell(FOUND, data)
    first, *others = capsys.readouterr().out.splitlines()
    assert first == "configuration 4 is in force"
    return status, others


def test_without_a_gateway_there_is_nothing_to_wait_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(tmp_path, capsys) == (0, [f"no gateway runs on {tmp_path}: the next one to start takes it"])


def test_each_process_says_whether_it_serves_the_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = History(tmp_path).root
    one, other = Confirmation(root), Confirmation(root)
    one.write(Confirmed(change=7, number=4, problem=None))
    other.write(Confirmed(change=6, number=3, problem=None))
    later = threading.Timer(0.05, other.write, [Confirmed(change=7, number=3, problem="it lacks an extra")])
    later.start()
    status, lines = told(tmp_path, capsys)
    later.join()
    assert (status, sorted(lines)) == (1, [f"{PROCESS}it lacks an extra", f"{PROCESS}serves it"])
    other.close()
    assert told(tmp_path, capsys) == (0, [f"{PROCESS}serves it"])
    one.close()
    assert running(root) == {}


def test_one_that_says_nothing_is_late(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "WAIT_S", 0.01)
    silent = Confirmation(History(tmp_path).root)
    status, lines = told(tmp_path, capsys)
    assert (status, lines) == (1, [f"{PROCESS}not within 0.01 s: it has not said whether it takes it"])
    silent.close()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    root = History(tmp_path).root
    killed = Confirmation(root)
    killed.write(Confirmed(change=7, number=4, problem=None))
    killed._lock.release()
    stray = root / GATEWAYS / ".DS_Store"
    stray.touch()
    assert wait_for(root, 8, 60.0) == {}
    assert list((root / GATEWAYS).iterdir()) == [stray]
