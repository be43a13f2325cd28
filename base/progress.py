"""Progress of a command on standard error: a bar on a terminal, a line every ten seconds or so in a pipe or a file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from base.terminal import Terminal

Progress = Callable[[str], None]
"""Told what is being done now; "12 of 80" in it is drawn as a bar."""


def silent(_: str) -> None:
    """Shows nothing."""


PART_OF_WHOLE = re.compile(r"(\d+) of (\d+)")
NUMBERS = re.compile(r"\d+")
EVERY_S = 10.0


@dataclass
class PlainLines:
    """Prints progress where no terminal shows a bar: every new step, and for a long one a line every `EVERY_S`, with
    the time that it took so far where nothing new is known."""

    write: Progress
    clock: Callable[[], float] = time.monotonic
    _step: str = field(default="", init=False)
    _said_at_s: float = field(default=0.0, init=False)
    _last: str = field(default="", init=False)
    _begun_s: float = field(default=0.0, init=False)

    def show(self, message: str) -> None:
        step, now_s = NUMBERS.sub("", message), self.clock()
        if message != self._last:
            self._last, self._begun_s = message, now_s
        if step != self._step or now_s - self._said_at_s >= EVERY_S:
            self.write(message)
            self._step, self._said_at_s = step, now_s

    def show_time(self) -> None:
        """Says the last message again, if it was said long ago."""
        now_s = self.clock()
        if self._last and now_s - self._said_at_s >= EVERY_S:
            self.write(f"{self._last} ({now_s - self._begun_s:.0f} s)")
            self._said_at_s = now_s

    def repeat(self, ended: Event) -> None:
        """Shows the time until a command ends."""
        while not ended.wait(EVERY_S / 10):
            self.show_time()


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Shows progress while a block runs. Standard output stays free for results."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        lines, ended = PlainLines(lambda line: console.print(line, soft_wrap=True)), Event()
        Thread(target=lines.repeat, args=(ended,), name="progress", daemon=True).start()
        try:
            yield lines.show
        finally:
            ended.set()
        return
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Display(*columns, console=console, transient=True) as display:
        task = display.add_task("starting", total=None)

        def show(message: str) -> None:
            found = PART_OF_WHOLE.search(message)
            total, done = (int(found[2]), int(found[1])) if found else (None, 0)
            display.update(task, description=message, total=total, completed=done)

        yield show


@contextmanager
def working(message: str) -> Iterator[None]:
    """Shows that one thing is being done while a block runs."""
    with console_progress() as show:
        show(message)
        yield
