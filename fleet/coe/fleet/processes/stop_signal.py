"""SIGINT, SIGTERM and SIGHUP: they end a start at once and a running composition in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop(asyncio.Event):
    """The first of `SIGNALS` sets it; `urgent` is set by SIGINT, which a person sends, and by a second signal."""

    def __init__(self) -> None:
        super().__init__()
        self.urgent = asyncio.Event()

    def note(self, number: int) -> None:
        if number == signal.SIGINT or self.is_set():
            self.urgent.set()
        self.set()


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """An event that the first of `SIGNALS` sets. While it is used, none ends the process. SIGHUP, which comes from a
    terminal that is closed, stays ignored where `nohup` has it ignored."""
    loop, stop = asyncio.get_running_loop(), Stop()
    kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [number for number in SIGNALS if not (kept and number is signal.SIGHUP)]
    for number in numbers:
        loop.add_signal_handler(number, stop.note, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


@dataclass
class Life:
    """The stop state of a program. While `is_starting`, a signal cancels it; later it minds `stop` itself."""

    stop: Stop
    is_starting: bool = True


async def live_until_signal(program: Callable[[Life], Coroutine[None, None, None]]) -> bool:
    """Runs a program; True when a signal cut its start short. Raises what the program raises."""
    with stop_on_signal() as stop:
        life = Life(stop)
        task = asyncio.create_task(program(life))
        signalled = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
            if task.done() or not life.is_starting:
                await task
                return False
            task.cancel()
            await asyncio.wait({task})  # its clean-up may take a while, and may fail in its own way
            if not task.cancelled():
                task.result()
            return True
        finally:
            signalled.cancel()
            task.cancel()
            await asyncio.gather(task, signalled, return_exceptions=True)
