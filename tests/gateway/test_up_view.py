"""Output of `coe up`, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import time

import pytest

from coe.cli.terminal import Terminal
from coe.gateway.lifecycle.up import UpView


def test_the_ending_gives_a_command_to_copy() -> None:
    out = io.StringIO()
    view = UpView(Terminal(file=out, width=40), time.perf_counter() - 7200)
    view.ready()
    view.ending("http://127.0.0.1:8000/v1", needs_key=False)
    text = out.getvalue()
    assert re.match(r"ready after 72\d\d\.\d s\n", text)
    assert "Console  http://127.0.0.1:8000/console\n" in text
    (command,) = [line for line in text.splitlines() if line.startswith("curl ")]
    assert command == (
        "curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'"""
    )


def test_the_command_shows_how_to_pass_a_key_and_no_key() -> None:
    out = io.StringIO()
    UpView(Terminal(file=out)).ending("http://127.0.0.1:8000/v1", needs_key=True, has_console=False)
    assert '-H "authorization: Bearer $COE_API_KEY"' in out.getvalue()
    assert "Console" not in out.getvalue()


def test_a_step_in_a_pipe_says_what_it_does_and_what_came_of_it() -> None:
    out = io.StringIO()
    view = UpView(Terminal(file=out))
    with view.step("starting the experts") as done:
        done("2 experts answer")
    said = out.getvalue().splitlines()
    assert said[0] == "starting the experts ..."
    assert said[1].startswith("✓ 2 experts answer (")
    with pytest.raises(KeyError), view.step("loading"):
        raise KeyError
    assert out.getvalue().splitlines()[2:] == ["loading ..."]
