"""Waiting for what happens by itself, with a deadline that a busy machine keeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 100.0


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], what: str = "the condition") -> None:
    """Returns once the condition holds; fails after a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found = condition()
        if await found if inspect.isawaitable(found) else found:
            return
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], bool], what: str = "the condition") -> None:
    """As `until`, but blocks."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)
