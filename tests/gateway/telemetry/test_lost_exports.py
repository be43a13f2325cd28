"""A collector that is away, refuses, or is slow: requests do not notice, and what was lost is counted."""

from __future__ import annotations

import asyncio
import threading

from prometheus_client.parser import text_string_to_metric_families

from coe.gateway.telemetry.exporting import MAX_WAITING, Exporting
from tests.gateway.running import Running, running
from tests.gateway.telemetry.collector import collecting, exporting_to
from tests.waiting import DEADLINE_S, until


async def lost(gateway: Running) -> dict[str, float]:
    """The numbers of spans that were exported, and of those lost by reason."""
    async with gateway.client.get(f"{gateway.root}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    return {
        sample.labels.get("reason", "exported"): sample.value
        for family in families
        for sample in family.samples
        if family.name.startswith("coe_spans_")
    }


async def test_a_collector_that_is_away_costs_no_request_and_no_stop(monkeypatch) -> None:
    """The SDK would try again and again before it ends, here for as long as the test."""
    monkeypatch.setattr("coe.gateway.telemetry.exporting.FLUSH_S", 0.2)
    may_end = threading.Event()

    def close(close=Exporting.close) -> None:
        may_end.wait()
        close(telemetry)

    try:
        away = exporting_to("http://127.0.0.1:1", monkeypatch, OTEL_EXPORTER_OTLP_TIMEOUT="0.1")
        async with asyncio.timeout(DEADLINE_S), away as telemetry:
            monkeypatch.setattr(telemetry, "close", close)
            async with running(telemetry=telemetry) as gateway:
                for _ in range(3):
                    async with gateway.chat("red") as answer:
                        assert answer.status == 200
                assert (await lost(gateway))["exported"] == 0
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


async def test_what_a_collector_refuses_is_counted(monkeypatch) -> None:
    async with (
        collecting() as collector,
        exporting_to(collector.url, monkeypatch) as telemetry,
        running(telemetry=telemetry) as gateway,
    ):
        async with gateway.chat("red"):
            pass
        await collector.wait(2)
        collector.status = 400
        async with gateway.chat("red"):
            pass
        found = dict[str, float]()
        while found.get("not_taken") != 2:
            found = await lost(gateway)
            await asyncio.sleep(0.01)
        assert found == {"exported": 2, "queue_full": 0, "not_taken": 2}


async def test_a_full_queue_drops_and_counts(monkeypatch) -> None:
    gate = asyncio.Event()
    async with collecting() as collector:
        monkeypatch.setattr(collector, "_body", lambda request, read=collector._body: held(gate, read, request))
        async with exporting_to(collector.url, monkeypatch) as telemetry, running(telemetry=telemetry) as gateway:
            for number in range(MAX_WAITING + 600):
                telemetry._tools.tracer.start_span(str(number)).end()
            found = await lost(gateway)
            assert 0 < found["queue_full"] <= 600
            async with gateway.chat("red") as answer:
                assert answer.status == 200
            gate.set()
            await until(lambda: len(collector.spans) >= MAX_WAITING)


async def held(gate: asyncio.Event, read, request) -> bytes:
    await gate.wait()
    return await read(request)
