"""Progress of a command on standard error: a bar on a terminal, a line now and then in a pipe or a file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

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
    """Prints progress where no terminal shows a bar: every new step, and for a long one a line every `EVERY_S`."""

    write: Progress
    clock: Callable[[], float] = time.monotonic
    _step: str = field(default="", init=False)
    _said_at_s: float = field(default=0.0, init=False)

    def show(self, message: str) -> None:
        step, now_s = NUMBERS.sub("", message), self.clock()
        if step != self._step or now_s - self._said_at_s >= EVERY_S:
            self.write(message)
            self._step, self._said_at_s = step, now_s


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Shows progress while a block runs. Standard output stays free for results."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield PlainLines(lambda line: console.print(line, highlight=False, soft_wrap=True)).show
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
