"""Progress of a command: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""Told what is being done now; "12 of 80" in it is drawn as a bar."""

PART_OF_WHOLE = re.compile(r"(\d+) of (\d+)")


def silent(_: str) -> None:
    """Progress that nobody watches."""


@contextmanager
def console_progress(*, is_quiet: bool = False) -> Iterator[Progress]:
    """A rich progress line on standard error while a block runs."""
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    from router.terminal import Terminal

    console = Terminal(stderr=True)
    if is_quiet or not console.is_terminal:
        yield silent
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Display(*columns, console=console, transient=True) as display:
        task = display.add_task("starting", total=None)

        def show(message: str) -> None:
            found = PART_OF_WHOLE.search(message)
            total, done = (int(found[2]), int(found[1])) if found else (None, 0)
            display.update(task, description=message, total=total, completed=done)

        yield show
