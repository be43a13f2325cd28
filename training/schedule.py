"""Retraining again and again until a signal says stop."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from base.errors import ConfigError
from base.progress import Progress

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_PERIOD_S = 365 * UNITS["d"]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """A signal asked to stop in the middle of a round; nothing was promoted by it."""


def parse_period(value: str) -> float:
    """Seconds of `90s`, `30m`, `1h`, `1.5h` or `1d`. Raises ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())
    period_s = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
    if not 0 < period_s <= MAX_PERIOD_S:
        raise ConfigError(
            f"--every: '{value}' is not a period; allowed: a number above 0 with s, m, h or d, such as 1h, up to 365d"
        )
    return period_s


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, instead of ending the process; a second signal ends it as usual."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def ask(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stoppable(progress: Progress, stop: threading.Event) -> Progress:
    """The same progress, which ends the round by StoppedError once `stop` is set: between two steps, never in one."""

    def told(message: str) -> None:
        if stop.is_set():
            raise StoppedError
        progress(message)

    return told


def repeat(once: Callable[[], None], period_s: float, stop: threading.Event) -> None:
    """Runs a round at once and then one a period after the last one ended, until `stop`."""
    while not stop.is_set():
        try:
            once()
        except StoppedError:
            return
        stop.wait(period_s)
