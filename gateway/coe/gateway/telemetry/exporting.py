"""OpenTelemetry's SDK, which its own environment variables set up. What cannot be sent is dropped."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Mapping
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from coe.base.errors import ConfigError
from coe.gateway.asgi import Scope
from coe.gateway.telemetry.request_spans import RequestSpans
from coe.gateway.telemetry.telemetry import Telemetry

SCOPE = "coe"
FLUSH_S = 3.0
"""For what waits to be exported when the gateway stops."""


class Exporting(Telemetry):
    """Follows requests with spans too. It has the provider of one process, which sends them to a collector.

    Args:
        instance: the name of this process.

    Raises:
        ConfigError: a variable is wrong.
    """

    def __init__(self, instance: str, *, has_lines: bool) -> None:
        super().__init__(has_lines=has_lines)
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # it would report every try
        self._tracers = TracerProvider(resource=resource_of(instance), shutdown_on_exit=False)
        try:
            self._tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise ConfigError(f"OTEL_*: {error}") from error
        self._tracer = self._tracers.get_tracer(SCOPE)

    def _watch(self, scope: Scope, headers: Mapping[bytes, bytes], routes: Collection[str]) -> RequestSpans:
        path: str = scope["path"]
        route = next((each for each in (path, "/".join(path.split("/")[:3])) if each in routes), "")
        return RequestSpans(self._tracer, self._logger, scope, headers, route)

    async def aclose(self) -> None:
        """Exports what waits, for at most `FLUSH_S`; a collector that hangs keeps no gateway from stopping, and neither
        does a database that hangs and has all threads of `asyncio.to_thread`."""
        closing = threading.Thread(target=self._tracers.shutdown, name="coe-telemetry-end", daemon=True)
        closing.start()
        deadline_s = time.monotonic() + FLUSH_S
        while closing.is_alive() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)


def resource_of(instance: str) -> Resource:
    """The gateway as its signals name it; what the environment says wins."""
    named = {
        "service.name": "coe",
        "service.version": version("composition-of-experts"),
        "service.instance.id": instance,
    }
    return Resource.create(named).merge(OTELResourceDetector().detect())
