from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from coe.fleet.processes import tasks
from coe.fleet.processes.tasks import Poller, stop_task


class Looks(Poller):
    """Looks by a function."""

    def __init__(self, look: Callable[[], Awaitable[None]], *settings: Any) -> None:
        super().__init__("a test", *settings)
        self._look = look

    async def look(self) -> None:
        await self._look()


async def test_a_task_that_swallows_a_cancel_is_stopped() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await stop_task(task)
    assert task.cancelled()
    assert swallowed == 2


async def test_nothing_to_stop_and_an_error_of_the_end_is_dropped() -> None:
    async def fail() -> None:
        raise ValueError("gone")

    await stop_task(None)
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    await stop_task(task)
    assert task.done()


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.01, 1.0), (0.2, 4.0), (3.0, 5.0)])
async def test_what_takes_long_is_looked_at_less_often_within_bounds(
    monkeypatch: pytest.MonkeyPatch, took_s: float, pause_s: float
) -> None:
    pauses: list[float] = []

    async def look() -> None:
        if pauses:
            raise asyncio.CancelledError

    async def noted(pause: float) -> None:
        pauses.append(pause)

    monkeypatch.setattr(tasks, "time", SimpleNamespace(monotonic=iter([0.0, took_s, took_s]).__next__))
    monkeypatch.setattr(tasks, "asyncio", SimpleNamespace(sleep=noted))
    with pytest.raises(asyncio.CancelledError):
        await Looks(look, 1.0, (), 5.0).poll()
    assert pauses == [pytest.approx(pause_s)]


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        (
            [OSError("a"), OSError("b"), None, None, OSError("c")],
            ["a test waits (OSError: a)", "a test waits no longer", "a test waits (OSError: c)"],
        ),
        (
            [ValueError("a"), ValueError("a"), ValueError("b"), None, ValueError("b")],
            ["a test continues after a fault"] * 3,
        ),
    ],
)
async def test_what_is_away_or_a_fault_is_logged_once_until_it_is_over(
    errors: list[Exception | None], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger=tasks.__name__)
    looks = iter([*errors, asyncio.CancelledError()])

    async def look() -> None:
        if (error := next(looks)) is not None:
            raise error

    with pytest.raises(asyncio.CancelledError):
        await Looks(look, 0.0, (OSError,)).poll()
    assert [each.message for each in caplog.records] == said
