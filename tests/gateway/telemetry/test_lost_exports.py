"""A collector that is away: requests do not notice."""

from __future__ import annotations

import asyncio
import threading

from tests.gateway.running import running
from tests.gateway.telemetry.collector import collecting, exporting_to
from tests.waiting import DEADLINE_S, until


async def test_a_collector_that_is_away_costs_no_request_and_no_stop(monkeypatch) -> None:
    """The SDK would try again and again before it ends, here for as long as the test."""
    monkeypatch.setattr("coe.gateway.telemetry.request_spans.FLUSH_S", 0.2)
    may_end = threading.Event()

    try:
        away = exporting_to("http://127.0.0.1:1", monkeypatch, OTEL_EXPORTER_OTLP_TIMEOUT="0.1")
        async with asyncio.timeout(DEADLINE_S), away as telemetry:
            shutdown = telemetry._tracers.shutdown
            monkeypatch.setattr(telemetry._tracers, "shutdown", lambda: may_end.wait() and shutdown())
            async with running(telemetry=telemetry) as gateway:
                for _ in range(3):
                    async with gateway.chat("red") as answer:
                        assert answer.status == 200
    finally:
        may_end.set()
    # They would draw random waits while a later test of this process looks whether it draws any.
    await until(lambda: not [each for each in threading.enumerate() if each.name.startswith(("Otel", "coe-telemetry"))])


async def test_a_database_that_hangs_keeps_no_exporter_from_its_end(monkeypatch) -> None:
    """All threads that wait for it are taken."""
    is_back = threading.Event()
    waiting = [asyncio.create_task(asyncio.to_thread(is_back.wait)) for _ in range(64)]
    try:
        async with asyncio.timeout(DEADLINE_S), collecting() as collector, exporting_to(collector.url, monkeypatch):
            pass
    finally:
        is_back.set()
        await asyncio.gather(*waiting)
