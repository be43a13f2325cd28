"""Every `coe ...` line in the documentation names a command that exists, with options that it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from coe.cli.command_line import command_of
from coe.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md"), *ROOT.glob("examples/*/*/*.md"))
BLOCK = re.compile(r"^```(?:sh|bash|console|text|)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (?:\$ )?(coe .*)$", re.MULTILINE)


def documented() -> Iterator[tuple[str, str]]:
    """Page and command line; a line that ends in a backslash is joined to the next."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        inside = "\n".join(BLOCK.findall(text))
        lines = re.findall(r"^(?:\$ |\.venv/bin/|make run.*&& )?(coe [a-z].*)$", inside, re.MULTILINE)
        for line in [*lines, *INDENTED.findall(text), *re.findall(r"`(coe [a-z][^`\n]*)`", text)]:
            yield str(page.relative_to(ROOT)), line


LINES = sorted(set(documented()))


def words_of(line: str) -> list[str]:
    """The words of one command, without comments, pipes and what follows it; `a | b` in prose means either."""
    command = re.split(r"\s(?:#|\||&&|>|2>|;|<)", line, maxsplit=1)[0]
    return shlex.split(command.replace("...", ""))[1:]


def test_the_documentation_is_read() -> None:
    assert len(LINES) > 150


@pytest.mark.parametrize("page", sorted({page for page, _ in LINES}))
def test_commands_of_a_page_exist_and_take_the_options_shown(page: str) -> None:
    wrong = [found for where, line in LINES if where == page and (found := fault(line))]
    assert wrong == []


def fault(line: str) -> str | None:
    """The fault of a line; None if there is none."""
    words = words_of(line)
    if not words or not words[0].islower():
        return None
    name = next((" ".join(words[:count]) for count in (2, 1) if " ".join(words[:count]) in COMMANDS), None)
    if name is None:
        is_group = len(words) == 1 and any(name.startswith(f"{words[0]} ") for name in COMMANDS)
        return None if is_group else f"no such command: {line}"
    rest = words[len(name.split()) :]
    try:
        command_of(name).make_context(f"coe {name}", [word for word in rest if word not in ("--help", "-h")])
    except Exception as error:  # noqa: BLE001 - the class is click's, or typer's copy of it
        if type(error).__name__ == "NoSuchOption":
            return f"{line}: {error}"
    return None


def test_the_site_and_the_index_lead_to_every_page() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {
        str(page.relative_to(ROOT / "docs")) for folder in ("", "results") for page in ROOT.glob(f"docs/{folder}/*.md")
    }
    assert {page for page in pages if f"docs/{page}" not in nav} == set()
    assert {page for page in pages - {"index.md"} if f"({page})" not in index} == set()
