"""Rounds of `coe retrain` in processes of their own: they go on after one that fails, and a hung one is ended."""

import json
import logging
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from coe.base.extras import MissingExtraError
from coe.fleet import learning
from coe.fleet.learning import Learning, run_quietly
from coe.fleet.processes.process import end_child
from coe.router.live_pointer import LIVE_FILE
from tests.waiting import until


def instead(monkeypatch, script):
    """Replaces the command of a round."""
    monkeypatch.setattr(learning, "coe_words", lambda *words: (sys.executable, "-c", script, *words))


@pytest.fixture
def routers(tmp_path):
    (tmp_path / LIVE_FILE).write_text("{}")
    return tmp_path


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def logged_pid(folder):
    return (folder / "pid").exists() and int((folder / "pid").read_text() or 0)


HANGS = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpid()))
while True: signal.pause()
"""
TERMINATES = HANGS.replace("signal.SIG_IGN", "signal.SIG_DFL")


async def test_rounds_go_on_after_one_that_fails_and_say_no_more_than_its_place(routers, monkeypatch, caplog):
    instead(monkeypatch, "raise ValueError('what a user wrote')")
    caplog.set_level(logging.INFO, "coe.fleet.learning")
    rounds = Learning(routers, [], 0.01)
    await rounds.start()
    await until(lambda: rounds.ends["failed"] > 2, "a third round")
    assert rounds.is_on
    await rounds.aclose()
    assert not rounds.is_on
    assert 'coe retrain failed after 0 s: File "<string>", line 1' in caplog.text
    assert "what a user wrote" not in caplog.text


async def test_a_round_runs_at_a_lower_priority_and_its_last_line_is_told(routers, monkeypatch):
    instead(monkeypatch, "import os; print('first'); print(os.nice(0))")
    assert await run_quietly([], 100.0) == ("ended", str(min(19, os.nice(0) + 10)))


async def test_a_hung_round_is_ended_after_the_limit_whatever_it_ignores(routers, monkeypatch):
    instead(monkeypatch, HANGS)
    monkeypatch.setattr(learning, "end_child", partial(end_child, grace_s=0.01))
    rounds = Learning(routers, [str(routers)], 0.01, limit_s=1.0)
    await rounds.start()
    pid = await until(lambda: logged_pid(routers), "the start of a round")
    await until(lambda: rounds.ends["hung"], "its end")
    assert not is_alive(pid)
    await rounds.aclose()


async def test_an_end_in_the_middle_of_a_round_ends_its_process(routers, monkeypatch):
    instead(monkeypatch, TERMINATES)
    rounds = Learning(routers, [str(routers)], 0.01)
    await rounds.start()
    pid = await until(lambda: logged_pid(routers), "the start of a round")
    await rounds.aclose()
    assert not is_alive(pid)


async def test_nothing_is_learned_before_there_is_a_live_router(routers, monkeypatch):
    instead(monkeypatch, "")
    (routers / LIVE_FILE).unlink()
    looks = []
    rounds = Learning(routers, [], 0.001)
    monkeypatch.setattr(rounds, "_left_s", lambda: looks.append(1) or 0.0)
    await rounds.start()
    await until(lambda: len(looks) > 3, "a fourth look")
    assert not rounds.ends
    (routers / LIVE_FILE).write_text("{}")
    await until(lambda: rounds.ends["ended"], "a round")
    await rounds.aclose()


async def test_a_round_of_another_process_counts_and_a_damaged_record_of_it_does_not(routers):
    def left_s(text):
        (routers / "rounds.jsonl").write_text(text)
        return Learning(routers, [], 3600.0)._left_s()

    assert left_s(json.dumps({"at": "2199-01-01T00:00:00+00:00", "verdict": "decline"}) + "\n") > 3600.0
    assert left_s(json.dumps({"at": "1999-01-01T00:00:00+00:00", "verdict": "decline"}) + "\n") < 0
    assert left_s('{"at": "2199\n') < 0


async def test_without_the_extra_it_is_off_with_one_warning(routers, monkeypatch, caplog):
    def lacking(feature, extras):
        raise MissingExtraError(feature, *extras)

    monkeypatch.setattr(learning, "require_extras", lacking)
    rounds = Learning(routers, [], 0.01)
    await rounds.start()
    assert not rounds.is_on
    (line,) = caplog.messages
    assert line.startswith("learning is off: learning from the log needs the 'train' extra: pip install ")
