"""`coe retrain --every`: periods, signals, and rounds that fail."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from base.errors import ConfigError
from tests.waiting import DEADLINE_S
from training.retrain_command import StoppedError, parse_period, repeat, stop_on_signal, stoppable


@pytest.mark.parametrize(
    ("value", "seconds"), [("90s", 90), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("1d", 86400)]
)
def test_periods(value, seconds):
    assert parse_period(value) == seconds


@pytest.mark.parametrize("value", ["", "1", "h", "0h", "-1h", "1w", "one hour", "366d", "9" * 400 + "d"])
def test_what_is_no_period_is_named(value):
    with pytest.raises(ConfigError, match=f"--every: '{value}' is not a period; allowed"):
        parse_period(value)


def test_rounds_go_on_until_the_stop():
    stop, rounds = threading.Event(), []

    def once() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 3:
            stop.set()

    repeat(once, 0.001, stop)
    assert rounds == [0, 1, 2]


def test_a_stop_ends_a_round_between_two_steps():
    stop, told = threading.Event(), []
    progress = stoppable(told.append, stop)

    def once() -> None:
        progress("first")
        stop.set()
        progress("second")

    repeat(once, 60.0, stop)
    assert told == ["first"]
    with pytest.raises(StoppedError):
        progress("third")


def test_the_first_signal_sets_the_event_and_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(DEADLINE_S)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_the_command_survives_a_failed_round_and_stops_cleanly(tmp_path, number):
    command = [sys.executable, "-m", "coe", "retrain", "--every", "1h", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert "every 1h" in process.stderr.readline()
        assert any("there is no live router to improve on" in line for line in process.stderr)  # after what it reads
        process.send_signal(number)
        _, rest = process.communicate()
    assert process.returncode == 0
    assert rest.endswith("retrain: stopped\n")
