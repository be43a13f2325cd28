"""Progress of a command on standard error: a bar on a terminal, a line about every ten seconds in a pipe or a file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coe.cli.terminal import Terminal

Progress = Callable[[str], None]
"""A callback for the current step of the work; "12 of 80" in its text is drawn as a bar."""


def silent(_: str) -> None:
    """Ignore progress."""


PART_OF_WHOLE = re.compile(r"(\d+) of (\d+)")
NUMBERS = re.compile(r"\d+")
EVERY_S = 10.0
"""Seconds between two lines about the same step."""


def plain_lines(write: Progress, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress callback for plain output: it writes each new step, and a long one every `EVERY_S`."""
    step, said_at_s = "", 0.0

    def show(message: str) -> None:
        nonlocal step, said_at_s
        is_new = step != (step := NUMBERS.sub("", message))
        if is_new or clock() - said_at_s >= EVERY_S:
            write(message)
            said_at_s = clock()

    return show


@contextmanager
def console_progress() -> Iterator[Progress]:
    """Show progress during a block, on standard error; standard output stays free for results."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield plain_lines(lambda line: console.print(line, soft_wrap=True))
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
    """Show one step as in progress during a block."""
    with console_progress() as show:
        show(message)
        yield
