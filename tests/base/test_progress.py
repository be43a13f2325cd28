"""Progress where nobody sees a bar."""

from __future__ import annotations

import pytest

from coe.cli.progress import EVERY_S, console_progress, plain_lines


def test_every_new_step_is_said_and_a_long_one_now_and_then() -> None:
    said: list[str] = []
    now_s = [0.0]
    show = plain_lines(said.append, lambda: now_s[0])
    for done in range(1, 41):
        show(f"encoded {done} of 40 queries")
        now_s[0] += EVERY_S / 10
    show("fitting")
    show("fitting")
    assert said == [f"encoded {done} of 40 queries" for done in (1, 11, 21, 31)] + ["fitting"]


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with console_progress() as progress:
        progress("reading \x1b[2J")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "reading \\u001b[2J\n"
