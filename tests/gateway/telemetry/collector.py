"""A collector of OpenTelemetry in small: it reads OTLP over HTTP, and keeps what came."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from coe.gateway.telemetry.request_spans import Exporting
from tests.served_app import app_of, serving
from tests.waiting import until

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}


@dataclass(frozen=True)
class Seen:
    """A span as it came. Ids are hexadecimal; `status` 2 is an error."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    status: int
    message: str
    events: int
    seconds: float
    instance: str


@dataclass
class Collector:
    """Everything that came; `status` is what it answers with."""

    url: str = ""
    status: int = 200
    spans: list[Seen] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    async def traces(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await self._body(request))
        for group in message.resource_spans if self.status == 200 else ():
            instance = values(group.resource.attributes)["service.instance.id"]
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.spans.append(
                    Seen(
                        name=span.name,
                        kind=KINDS[span.kind],
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        attributes=values(span.attributes),
                        status=span.status.code,
                        message=span.status.message,
                        events=len(span.events),
                        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        instance=instance,
                    )
                )
        return web.Response(status=self.status)

    async def _body(self, request: web.Request) -> bytes:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.raw.append(body)
        return body

    async def wait(self, count: int) -> list[Seen]:
        """So many spans, once they are here, in the order of their begin: parents before children."""
        await until(lambda: len(self.spans) >= count)
        assert len(self.spans) == count, [span.name for span in self.spans]
        return sorted(self.spans, key=lambda span: (span.kind != "SERVER", span.attributes.get("coe.attempt", 0)))


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: value_of(each.value) for each in attributes}


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return [value_of(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    async with serving(app_of({"POST /v1/traces": collector.traces})) as collector.url:
        yield collector


def environment(url: str) -> dict[str, str]:
    """Variables that send everything there, soon."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "20",
    }


@asynccontextmanager
async def exporting_to(url: str, monkeypatch: pytest.MonkeyPatch, **more: str) -> AsyncIterator[Exporting]:
    """A telemetry that follows requests and exports there."""
    for name, value in (environment(url) | more).items():
        monkeypatch.setenv(name, value)
    telemetry = Exporting("one", has_lines=False)
    yield telemetry
    await telemetry.aclose()
