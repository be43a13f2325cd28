"""Progress of what is learned; `router.progress` shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Told what is being done now; "12 of 80" in it is drawn as a bar."""


def silent(_: str) -> None:
    """Progress that nobody watches."""
