"""Waiting for what happens by itself, with a deadline that a busy machine keeps."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

DEADLINE_S = 100.0

T = TypeVar("T")


async def until(condition: Callable[[], T] | Callable[[], Awaitable[T]], what: str = "the condition") -> T:
    """What the condition gives once that is true; fails after a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        given = condition()
        if found := await given if inspect.isawaitable(given) else given:
            return found
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], T], what: str = "the condition", deadline_s: float = DEADLINE_S) -> T:
    """As `until`, but blocks."""
    deadline = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.01)
    return found
