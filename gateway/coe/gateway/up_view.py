"""The output of `coe up`: a spinner on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.markup import escape
from rich.text import Text

from coe.cli.terminal import Terminal


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

    def ending(self, base_url: str, *, needs_key: bool, has_console: bool = True) -> None:
        """Prints the addresses and a command to copy."""
        key = ' -H "authorization: Bearer $COE_API_KEY"' if needs_key else ""
        self._line(("API", "bold"), f"      {base_url}   ", ('(any OpenAI client; model "auto")', "dim"))
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
