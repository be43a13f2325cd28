"""Output of `coe up`, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
import time
from collections.abc import AsyncIterator

import pytest

from coe.cli.terminal import Terminal
from coe.gateway.first_answers import FirstAnswer
from coe.gateway.up_view import COLUMNS, UpView

GOOD = FirstAnswer(
    query="What is [6 * 7]?",
    asked_for="arithmetic",
    category="arithmetic",
    confidence=0.912,
    expert="calculator",
    ttft_ms=41.4,
    tokens_per_s=83.6,
    text="It is\n42.",
)
UNSURE = FirstAnswer("hm", "chat", "general", 0.3, "generalist", fallback="uncertain", ttft_ms=50.0, text="Hello")
BROKEN = FirstAnswer("why", "facts", problem="HTTP 503: no expert")


async def stream(*answers: FirstAnswer) -> AsyncIterator[FirstAnswer]:
    for answer in answers:
        yield answer


async def test_a_pipe_gets_one_line_an_answer() -> None:
    out = io.StringIO()
    view = UpView(Terminal(file=out, width=60), time.perf_counter() - 7200)
    view.ready()
    seen = await view.answers(stream(GOOD, UNSURE, BROKEN))
    assert seen == [GOOD, UNSURE, BROKEN]
    ready, _, header, *lines = out.getvalue().rstrip("\n").split("\n")
    assert [title for title in COLUMNS if title not in header] == []
    assert lines[0].split() == ["What", "is", "[6", "*", "7]?", "arithmetic", "0.91", "41", "ms", "84", "calculator"]
    assert lines[1].split() == ["hm", "general", "0.30", "50", "ms", "generalist,", "uncertain"]
    assert lines[2].split() == ["why", "facts", "no", "answer"]
    assert re.fullmatch(r"ready after 72\d\d\.\d s", ready)
    assert re.fullmatch(r"3 queries took \d+\.\d s", lines[-1])
    assert max(map(len, [header, *lines])) <= 80
    assert "\x1b" not in out.getvalue()


async def test_a_terminal_gets_a_table_with_the_answers() -> None:
    out = io.StringIO()
    await UpView(Terminal(file=out, width=160, force_terminal=True, color_system=None)).answers(stream(GOOD, BROKEN))
    last = out.getvalue().rsplit("tok/s", 1)[1]
    for cell in (
        "What is [6 * 7]?",
        "→ It is 42.",
        "arithmetic",
        "0.91",
        "calculator",
        "41 ms",
        "84",
        "HTTP 503: no expert",
    ):
        assert cell in last


def test_the_ending_counts_and_gives_a_command_to_copy() -> None:
    out = io.StringIO()
    UpView(Terminal(file=out, width=40)).ending("http://127.0.0.1:8000/v1", [GOOD, UNSURE], needs_key=False)
    text = out.getvalue()
    assert "1 of 2 queries were put into the category they were written for." in text
    assert "Console  http://127.0.0.1:8000/console\n" in text
    (command,) = [line for line in text.splitlines() if line.startswith("curl ")]
    assert command == (
        "curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' "
        """-d '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'"""
    )


def test_the_command_shows_how_to_pass_a_key_and_no_key() -> None:
    out = io.StringIO()
    UpView(Terminal(file=out)).ending("http://127.0.0.1:8000/v1", [], needs_key=True, has_console=False)
    assert '-H "authorization: Bearer $COE_API_KEY"' in out.getvalue()
    assert "Console" not in out.getvalue()
    assert "queries were put" not in out.getvalue()


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
