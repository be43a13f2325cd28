"""The output of `coe up`: a spinner and tables on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from coe.base.visible_text import visible_line
from coe.cli.terminal import Grid, Terminal
from coe.gateway.first_answers import FirstAnswer

COLUMNS = ("query", "category", "conf.", "1st token", "tok/s", "expert")
NUMBERS = frozenset(COLUMNS[2:5])
PLAIN_WIDTHS = (21, 15, 6, 10, 6, 22)
"""80 columns together."""
QUERY_CHARS, PREVIEW_CHARS = 46, 90


class UpView:
    """Writes to one console. `begun_s` is when the start began, on the clock of `time.perf_counter`."""

    def __init__(self, console: Terminal, begun_s: float | None = None) -> None:
        self._console = console
        self._begun_s = time.perf_counter() if begun_s is None else begun_s

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        """Shows `title` while the block runs (in a pipe a line before it), and its outcome and duration after it."""
        outcomes, begin = [title], time.perf_counter()
        if self._console.is_terminal:
            with self._console.status(escape(title)):
                yield outcomes.append
        else:
            self._line((f"{title} ...", "dim"))
            yield outcomes.append
        took = f" ({time.perf_counter() - begin:.1f} s)"
        self._line(("✓", "green"), f" {outcomes[-1]}", (took, "dim"))

    def note(self, text: str) -> None:
        """One line that is neither step nor result."""
        self._line((text, "dim"))

    def ready(self) -> None:
        """Says how long the start took until the gateway could answer."""
        self._line((f"ready after {time.perf_counter() - self._begun_s:.1f} s", "bold"))

    def command(self, title: str, words: Sequence[str]) -> None:
        """Announces a command whose output follows."""
        self._line((title, "bold"), (f" $ {' '.join(words)}", "dim"))

    async def answers(self, answers: AsyncIterator[FirstAnswer]) -> list[FirstAnswer]:
        """Shows answers as they come and returns them all."""
        self._line("")
        begin = time.perf_counter()
        seen = await (self._live_answers(answers) if self._console.is_terminal else self._plain_answers(answers))
        self._line(f"\n{len(seen)} queries took {time.perf_counter() - begin:.1f} s")
        return seen

    async def _live_answers(self, answers: AsyncIterator[FirstAnswer]) -> list[FirstAnswer]:
        table, seen = answer_table(), []
        with Live(table, console=self._console, refresh_per_second=8):
            async for answer in answers:
                seen.append(answer)
                query, *others = cells_of(answer)
                shown = visible_line(shorten(answer.problem or answer.text, PREVIEW_CHARS))
                table.add_row(Group(query, Text(f"→ {shown}", "dim")), *others)
        return seen

    async def _plain_answers(self, answers: AsyncIterator[FirstAnswer]) -> list[FirstAnswer]:
        seen = []
        self._line(plain_row(COLUMNS))
        async for answer in answers:
            seen.append(answer)
            self._line(plain_row(cells_of(answer)))
        return seen

    def ending(
        self, base_url: str, answers: Sequence[FirstAnswer], *, needs_key: bool, has_console: bool = True
    ) -> None:
        """Prints how many queries went where they belong, the addresses, and a command to copy."""
        if answers:
            right = sum(answer.is_as_meant for answer in answers)
            self._line(f"{right} of {len(answers)} queries were put into the category they were written for.")
        key = ' -H "authorization: Bearer $COE_API_KEY"' if needs_key else ""
        self._line(("\nAPI", "bold"), f"      {base_url}   ", ('(any OpenAI client; model "auto")', "dim"))
        if has_console:
            self._line(("Console", "bold"), f"  {base_url.removesuffix('/v1')}/console")
        self._line()
        self._line(
            f"curl {base_url}/chat/completions -H 'content-type: application/json'{key} "
            """-d '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'\n"""
        )

    def _line(self, *parts: str | tuple[str, str]) -> None:
        """Texts, each alone or with its style."""
        self._console.print(Text.assemble(*parts), soft_wrap=True)


def answer_table() -> Grid:
    table = Grid(header_style="bold")
    table.add_column(COLUMNS[0], ratio=1, min_width=24)
    for title in COLUMNS[1:]:
        table.add_column(title, justify="right" if title in NUMBERS else "left", no_wrap=True)
    return table


def cells_of(answer: FirstAnswer) -> tuple[str, ...]:
    """The cells of an answer, in the order of `COLUMNS`."""
    query = shorten(answer.query, QUERY_CHARS)
    if answer.problem is not None:
        return (query, answer.asked_for, "", "", "", "no answer")
    return (
        query,
        answer.category,
        f"{answer.confidence:.2f}",
        "" if answer.ttft_ms is None else f"{answer.ttft_ms:.0f} ms",
        "" if answer.tokens_per_s is None else f"{answer.tokens_per_s:.0f}",
        f"{answer.expert}, {answer.fallback}" if answer.fallback else answer.expert,
    )


def plain_row(cells: Sequence[str]) -> str:
    return "".join(
        f"{shorten(cell, width - 1):<{width}}" for cell, width in zip(cells, PLAIN_WIDTHS, strict=True)
    ).rstrip()


def shorten(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
