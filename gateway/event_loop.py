"""The event loop of a gateway's processes."""

from __future__ import annotations

from collections.abc import Coroutine

import uvloop


def run(program: Coroutine[None, None, object]) -> None:
    """Runs a program on uvloop, which takes a third less CPU per request than asyncio's own loop."""
    uvloop.run(program)
