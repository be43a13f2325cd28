"""Signals cut a start short and end a running program in order."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from coe.fleet.processes.stop_signal import Life, live_until_signal, stop_on_signal
from tests.waiting import until


async def test_a_signal_during_the_start_cancels_it_and_waits_for_its_clean_up() -> None:
    seen = []

    async def program(life: Life) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    assert await live_until_signal(program) is True
    assert seen == ["cleaned up"]


async def test_a_signal_while_running_is_left_to_the_program() -> None:
    seen = []

    async def program(life: Life) -> None:
        life.is_starting = False
        os.kill(os.getpid(), signal.SIGTERM)
        await life.stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)  # an impatient second one changes nothing
        await asyncio.sleep(0.01)
        seen.append("ended in order")

    assert await live_until_signal(program) is False
    assert seen == ["ended in order"]


@pytest.mark.parametrize(
    ("numbers", "is_urgent"),
    [([signal.SIGTERM], False), ([signal.SIGTERM, signal.SIGTERM], True), ([signal.SIGINT], True)],
)
async def test_ctrl_c_and_a_second_signal_are_urgent(numbers: list[signal.Signals], is_urgent: bool) -> None:
    async def program(life: Life) -> None:
        life.is_starting = False
        for number in numbers:
            os.kill(os.getpid(), number)
            await life.stop.wait()
        if is_urgent:
            await until(life.stop.urgent.is_set)
        assert life.stop.urgent.is_set() is is_urgent

    await live_until_signal(program)


async def test_what_the_program_raises_is_raised() -> None:
    async def program(life: Life) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await live_until_signal(program)


async def test_what_its_clean_up_raises_is_raised() -> None:
    async def program(life: Life) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("x")

    with pytest.raises(KeyError):
        await live_until_signal(program)


async def test_the_signals_mean_afterwards_what_they_meant_before() -> None:
    async def program(life: Life) -> None:
        assert signal.getsignal(signal.SIGTERM) is not before

    before = signal.getsignal(signal.SIGTERM)
    await live_until_signal(program)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("before", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)], ids=["shell", "nohup"])
async def test_a_terminal_that_is_closed(before: signal.Handlers, ends: bool) -> None:
    kept = signal.signal(signal.SIGHUP, before)
    try:
        with stop_on_signal() as stop:
            assert (signal.getsignal(signal.SIGHUP) != before) is ends
            signal.raise_signal(signal.SIGHUP)
            if ends:
                await stop.wait()
            assert stop.is_set() is ends
    finally:
        signal.signal(signal.SIGHUP, kept)
