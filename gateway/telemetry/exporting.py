"""OpenTelemetry's SDK, which its own environment variables set up. What cannot be sent is dropped and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from opentelemetry._logs import Logger, NoOpLogger, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from prometheus_client.core import CounterMetricFamily, Metric

from base.errors import ConfigError
from gateway.asgi import Scope
from gateway.telemetry.instruments import Instruments
from gateway.telemetry.request_spans import RequestSpans
from gateway.telemetry.span_ids import SpanIds
from gateway.telemetry.trace_ids import span_of

SCOPE = "coe"
EVALUATION = "gen_ai.evaluation.result"
MAX_WAITING = 2048
"""Spans, or events, that wait to be exported; more are dropped."""


@dataclass
class Flow:
    """What became of the spans, or events, that were made. Each field is written by one thread."""

    given: int = 0
    dropped: int = 0  # the queue was full
    taken: int = 0
    failed: int = 0  # the collector did not take them

    def admits(self) -> bool:
        """Returns True where one more may wait."""
        if self.given - self.taken >= MAX_WAITING:
            self.dropped += 1
            return False
        self.given += 1
        return True

    def sent(self, count: int, *, is_good: bool) -> None:
        self.taken += count
        self.failed += 0 if is_good else count


class Spans(BatchSpanProcessor):
    """The SDK's queue, which counts what it drops."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(SpanSender(flow), MAX_WAITING)
        self._flow = flow

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled and self._flow.admits():
            super().on_end(span)


class SpanSender(SpanExporter):
    """Sends spans, and counts."""

    def __init__(self, flow: Flow) -> None:
        self._inner, self._flow = OTLPSpanExporter(), flow

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        self._flow.sent(len(spans), is_good=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]


class Events(BatchLogRecordProcessor):
    """The same for events."""

    def __init__(self, flow: Flow) -> None:
        super().__init__(EventSender(flow), max_queue_size=MAX_WAITING)
        self._flow = flow

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        if self._flow.admits():
            super().on_emit(log_record)


class EventSender(LogRecordExporter):
    """Sends events, and counts."""

    def __init__(self, flow: Flow) -> None:
        self._inner, self._flow = OTLPLogExporter(), flow

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = self._inner.export(batch)
        self._flow.sent(len(batch), is_good=result is LogRecordExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        return True  # nothing waits here


@dataclass
class Exporting:
    """The providers of one process, which sends the signals that the environment names a collector for.

    Raises:
        ConfigError: a variable is wrong.
    """

    signals: Collection[str]
    instance: str
    _flows: dict[str, Flow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # it would report every try
        resource = resource_of(self.instance)
        self._ids = SpanIds()
        self._tracers = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=self._ids)
        self._events = LoggerProvider(resource, shutdown_on_exit=False)
        try:
            readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if "metrics" in self.signals else []
            if "traces" in self.signals:
                self._tracers.add_span_processor(Spans(self._flows.setdefault("traces", Flow())))
            if "logs" in self.signals:
                self._events.add_log_record_processor(Events(self._flows.setdefault("logs", Flow())))
        except ValueError as error:
            raise ConfigError(f"OTEL_*: {error}") from error
        self._meters = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._tracer = self._tracers.get_tracer(SCOPE)
        self._instruments = Instruments(self._meters.get_meter(SCOPE))
        self._logger: Logger = self._events.get_logger(SCOPE) if "logs" in self.signals else NoOpLogger(SCOPE)

    def request(self, scope: Scope, headers: Mapping[bytes, bytes], route: str) -> RequestSpans:
        """The spans of a request, which begins now."""
        return RequestSpans(self._tracer, self._ids, self._instruments, scope, headers, route)

    def graded(self, name: str, value: float, decision_id: str) -> None:
        """Emits a grade, on the span of the request that it is about where that was traced."""
        span, context = span_of(decision_id), Context()
        if span is not None:
            about = SpanContext(int(span[0], 16), int(span[1], 16), is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(about), context)
        self._logger.emit(
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

    def counted(self) -> Iterator[Metric]:
        """What became of spans and events."""
        exported = CounterMetricFamily("coe_telemetry_exported", "Taken by the collector", labels=["signal"])
        lost = CounterMetricFamily("coe_telemetry_dropped", "Lost on the way to it", labels=["signal", "reason"])
        for signal, flow in self._flows.items():
            exported.add_metric([signal], flow.taken - flow.failed)
            lost.add_metric([signal, "queue_full"], flow.dropped)
            lost.add_metric([signal, "not_taken"], flow.failed)
        yield exported
        yield lost

    def close(self) -> None:
        """Sends what waits. Blocks for as long as the collector does."""
        providers: Iterable[TracerProvider | LoggerProvider | MeterProvider]
        providers = (self._tracers, self._events, self._meters)
        for provider in providers:
            provider.shutdown()


def resource_of(instance: str) -> Resource:
    """The gateway as its signals name it; what the environment says wins."""
    named = {
        "service.name": "coe",
        "service.version": version("composition-of-experts"),
        "service.instance.id": instance,
    }
    return Resource.create(named).merge(OTELResourceDetector().detect())
