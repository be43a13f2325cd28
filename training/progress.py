"""Progress of a command: a spinner on a terminal, nothing in a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str], None]
"""Told what is being done now."""


def silent(_: str) -> None:
    """Progress that nobody watches."""


@contextmanager
def console_progress(*, is_quiet: bool = False) -> Iterator[Progress]:
    """A rich status line on standard error while a block runs."""
    from rich.console import Console

    console = Console(stderr=True)
    if is_quiet or not console.is_terminal:
        yield silent
        return
    with console.status("starting") as status:
        yield status.update
