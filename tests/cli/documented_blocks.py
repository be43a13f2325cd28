"""Blocks of shell commands in the documentation, and which of their lines a comment before them excepts from being run.

<!-- not run: coe serve: waits for clients; tests/gateway/test_three_gateways.py starts it -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))
"""Pages in docs/results begin with the command that made them, which takes minutes to hours: docs/index.md says so."""

MARKS = re.compile(r"((?:<!-- not run: [^>]+ -->\n)*)\n?$")
MARK = re.compile(r"<!-- not run: (.+?): ([^>]+) -->")
FENCED = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    (?:coe|curl|docker|make|pip|python) .*\n(?:^     +.*\n)*)+", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """`lines` are whole commands; `excepted` maps beginnings of lines (`all`: every line) to the reason."""

    page: str
    lines: tuple[str, ...]
    excepted: dict[str, str]

    @property
    def runnable(self) -> tuple[str, ...]:
        return tuple(line for line in self.lines if not any(map(line.startswith, self.excepted)) and not self.is_all)

    @property
    def is_all(self) -> bool:
        return "all" in self.excepted


def blocks() -> Iterator[Block]:
    """Every block, in the order of its page."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found = sorted((*FENCED.finditer(text), *INDENTED.finditer(text)), key=lambda match: match.start())
        for match in found:
            content = re.sub(r" *\\\n *", " ", match[1] if match.re is FENCED else match[0])
            lines = tuple(line.strip() for line in content.splitlines() if line.strip())
            marks = MARKS.search(text[: match.start()])
            excepted = dict(MARK.findall(marks[1] if marks else ""))
            yield Block(str(page.relative_to(ROOT)), lines, excepted)
