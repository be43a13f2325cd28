"""Text of others cannot drive the terminal of whoever looks at it."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from coe.base.visible_text import echo, visible, visible_line
from coe.cli.command_line import complain
from coe.cli.terminal import Grid, Terminal
from coe.fleet.processes.program_log import FORMAT, SafeFormatter

DRIVES = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
HOSTILE = (
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[H",
    "\x9b31m",
    "\x90q\x9c",
    "abc\rxyz",
    "\u202egnp.exe",
    "\u2066a\u2069",
    "a\u2028b",
    "\x7f\x08\x08",
    "\ud800",
    "[link=http://evil.example]here[/link]",
    "[/nothing]",
    ":skull:",
)
foreign = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=())))


def shown(*renderables: object, **options: object) -> str:
    out = io.StringIO()
    console = Terminal(file=out, width=500, color_system=None, **options)
    for each in renderables:
        console.print(each)
    return out.getvalue()


@given(foreign)
def test_a_console_shows_foreign_text_and_does_not_obey_it(text: str) -> None:
    table = Grid(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(Text(text, "bold"))
    found = shown(text, Text(text), table, force_terminal=True)
    assert not DRIVES.search(found.replace("\t", ""))
    assert "evil.example" not in text or text in found  # not read as markup


@given(foreign)
def test_a_cell_is_one_line(text: str) -> None:
    table = Grid("text", show_edge=False)
    table.add_row(f"{text}\n| forged | row |\t")
    assert [line for line in shown(table).split("\n") if line.lstrip().startswith("| forged")] == []


def test_cells_are_as_wide_as_what_is_shown() -> None:
    table = Grid("a", "b")
    table.add_row("\x1b[31mred\x1b[0m", "next")
    table.add_row("plain", "next")
    lines = shown(table).rstrip("\n").split("\n")
    assert len({len(line) for line in lines}) == 1
    assert "\\u001b[31mred\\u001b[0m" in shown(table)


def test_lines_wrap_by_what_is_shown() -> None:
    out = io.StringIO()
    Terminal(file=out, width=20, color_system=None).print("\x1b[31m" * 12)
    lines = out.getvalue().split()
    assert max(len(line) for line in lines) <= 20
    assert "".join(lines) == "\\u001b[31m" * 12


@given(foreign)
def test_json_stays_the_same_json(text: str) -> None:
    for as_ascii in (True, False):
        assert json.loads(visible(json.dumps({"text": text}, ensure_ascii=as_ascii, indent=1))) == {"text": text}


def test_letters_of_all_scripts_and_emoji_pass() -> None:
    text = "Zażółć 日本語 العربية हिन्दी 👩‍👩‍👧 é\u00a0x\u3000y\u200c"
    assert visible(text) == text
    assert visible("a\n\tb") == "a\n\tb"
    assert visible_line("a\n\tb") == "a\\u000a\\u0009b"


def test_lines_and_complaints_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    echo("prompt \x1b[2J \x9b")
    echo("to stderr \x1b[2J", to_stderr=True)
    complain(["experts.yaml: 'x\x1b[2J\u202e' is not allowed"])
    out, err = capsys.readouterr()
    assert out == "prompt \\u001b[2J \\u009b\n"
    assert err == "to stderr \\u001b[2J\ncoe: experts.yaml: 'x\\u001b[2J\\u202e' is not allowed\n"


def test_a_log_line_cannot_be_forged_and_a_traceback_keeps_its_lines() -> None:
    formatter = SafeFormatter(FORMAT)
    try:
        raise ValueError("odd \x1b[2J value")
    except ValueError as error:
        fault = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "said %s", ("\x1b[2J\n2026 ERROR forged",), fault)
    first, *rest = formatter.format(record).split("\n")
    assert first.endswith("said \\u001b[2J\\u000a2026 ERROR forged")
    assert rest[0].startswith("Traceback")
    assert rest[-1] == "ValueError: odd \\u001b[2J value"


words = st.text("abcdefghij-", min_size=1, max_size=18)
sentences = st.lists(words, max_size=12).map(" ".join)


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.lists(sentences, min_size=n, max_size=n), min_size=1)))
def test_every_row_is_a_line_and_loses_no_word(rows: list[list[str]]) -> None:
    """Also of a table that is wider than the terminal; names stay whole, so that they can be copied."""
    table, out = Grid(*(f"column{i}" for i in range(len(rows[0])))), io.StringIO()
    for row in rows:
        table.add_row(*row)
    Terminal(file=out, width=80).print(table)
    found = out.getvalue()
    assert len(found.splitlines()) == len(rows) + 4
    assert {word for row in rows for cell in row for word in cell.split()} <= set(found.split())
