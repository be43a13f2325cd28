"""OpenTelemetry's SDK, which its own environment variables set up. What cannot be sent is dropped and counted."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version

from opentelemetry._logs import SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from prometheus_client.core import CounterMetricFamily, Metric

from coe.base.errors import ConfigError
from coe.gateway.asgi import Scope
from coe.gateway.telemetry.request_spans import RequestSpans, SpanIds, Tools
from coe.gateway.telemetry.telemetry import Telemetry, span_of

SCOPE = "coe"
EVALUATION = "gen_ai.evaluation.result"
FLUSH_S = 3.0
"""For what waits to be exported when the gateway stops."""

MAX_WAITING = 2048
"""Spans that wait to be exported; more are dropped."""


class Sender(OTLPSpanExporter):
    """Sends spans in the SDK's thread, and counts."""

    taken = failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.taken += len(spans)
        if result is not SpanExportResult.SUCCESS:
            self.failed += len(spans)
        return result


class Spans(BatchSpanProcessor):
    """The SDK's queue, which counts what it drops. Spans end on the event loop."""

    given = dropped = 0

    def __init__(self) -> None:
        self.sender = Sender()
        super().__init__(self.sender, MAX_WAITING)

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        if self.given - self.sender.taken >= MAX_WAITING:
            self.dropped += 1
            return
        self.given += 1
        super().on_end(span)

    def counted(self) -> Iterator[Metric]:
        """Result of sending the spans."""
        sent = self.sender.taken - self.sender.failed
        yield CounterMetricFamily("coe_spans_exported", "Spans that the collector took", value=sent)
        lost = CounterMetricFamily("coe_spans_dropped", "Spans lost on the way to it", labels=["reason"])
        lost.add_metric(["queue_full"], self.dropped)
        lost.add_metric(["not_taken"], self.sender.failed)
        yield lost


class Exporting(Telemetry):
    """Follows requests with spans too. It has the providers of one process, which send the signals that the
    environment names a collector for.

    Args:
        instance: the name of this process.

    Raises:
        ConfigError: a variable is wrong.
    """

    def __init__(self, signals: Collection[str], instance: str, *, has_lines: bool) -> None:
        super().__init__(has_lines=has_lines)
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # it would report every try
        resource, ids = resource_of(instance), SpanIds()
        sampler = None if "traces" in signals else ALWAYS_OFF  # None: the environment's
        self._tracers = TracerProvider(sampler, resource, shutdown_on_exit=False, id_generator=ids)
        self._events = LoggerProvider(resource, shutdown_on_exit=False)
        try:
            self._spans = Spans() if "traces" in signals else None
            if "logs" in signals:
                self._events.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        except ValueError as error:
            raise ConfigError(f"OTEL_*: {error}") from error
        if self._spans is not None:
            self._tracers.add_span_processor(self._spans)
        self._tools = Tools(self._tracers.get_tracer(SCOPE), ids)
        self._grades = self._events.get_logger(SCOPE)

    def _watch(self, scope: Scope, headers: Mapping[bytes, bytes], routes: Collection[str]) -> RequestSpans:
        path: str = scope["path"]
        route = next((each for each in (path, "/".join(path.split("/")[:3])) if each in routes), "")
        return RequestSpans(self._tools, self._logger, scope, headers, route)

    def graded(self, name: str, value: float, decision_id: str) -> None:
        """Emits a grade as an event, on the span of the request that it is about where that was traced."""
        span, context = span_of(decision_id), Context()
        if span is not None:
            about = SpanContext(int(span[0], 16), int(span[1], 16), is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(about), context)
        self._grades.emit(
            timestamp=time.time_ns(),
            context=context,
            severity_number=SeverityNumber.INFO,
            event_name=EVALUATION,
            attributes={
                "gen_ai.evaluation.name": name,
                "gen_ai.evaluation.score.value": value,
                "gen_ai.response.id": decision_id,
            },
        )

    def metrics(self) -> Iterator[Metric]:
        return iter(()) if self._spans is None else self._spans.counted()

    async def aclose(self) -> None:
        """Exports what waits, for at most `FLUSH_S`; a collector that hangs keeps no gateway from stopping, and neither
        does a database that hangs and has all threads of `asyncio.to_thread`."""
        closing = threading.Thread(target=self.close, name="coe-telemetry-end", daemon=True)
        closing.start()
        deadline_s = time.monotonic() + FLUSH_S
        while closing.is_alive() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)

    def close(self) -> None:
        """Sends what waits. Blocks for as long as the collector does."""
        self._tracers.shutdown()
        self._events.shutdown()


def resource_of(instance: str) -> Resource:
    """The gateway as its signals name it; what the environment says wins."""
    named = {
        "service.name": "coe",
        "service.version": version("composition-of-experts"),
        "service.instance.id": instance,
    }
    return Resource.create(named).merge(OTELResourceDetector().detect())
