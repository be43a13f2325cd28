"""The spans of one request, named by OpenTelemetry's conventions for generative AI. Nothing of what was
asked or answered is in them. OpenTelemetry's SDK exports them, which its own environment variables set up; what cannot
be sent is dropped."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from logging import Logger

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from coe.base.errors import ConfigError
from coe.decision_log.decision_record import DecisionKind, DecisionRecord, TerminalState
from coe.fleet.calls.backend import BackendRequest
from coe.gateway.exchange import MAX_MODEL_CHARS, ChatRow
from coe.gateway.http.asgi import Scope
from coe.gateway.http_errors import ApiError
from coe.gateway.telemetry.telemetry import RequestLine, Telemetry
from coe.router.config.expert import Engine, ExpertConfig
from coe.router.prices.usage import READ, WRITTEN
from coe.router.types import RoutingDecision

OPERATION, PROVIDER, MODEL = "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"
ERROR = "error.type"
RESPONSE_ID, DECISION_ID, EXPERT = "gen_ai.response.id", "coe.decision.id", "coe.expert"
CHAT = "chat"
OPERATIONS = {
    "completions": "text_completion",
    DecisionKind.EMBEDDING: "embeddings",
    DecisionKind.SEARCH: "retrieval",
    DecisionKind.RERANK: "rerank",
}
PROVIDERS = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""litellm's names of providers that the conventions call something else."""

SAMPLING = ("max_tokens", "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
PROPAGATOR = TraceContextTextMapPropagator()
SCOPE = "coe"
FLUSH_S = 3.0
"""For what waits to be exported when the gateway stops."""

Attributes = dict[str, str | int | float | bool]


@dataclass
class Hop:
    """A call of an expert that has not ended."""

    span: Span
    began_s: float
    first_s: float | None = None


class RequestSpans(RequestLine):
    """A span of the server, and below it one for each call of an expert or choice of documents."""

    def __init__(
        self, tracer: Tracer, logger: Logger, scope: Scope, headers: Mapping[bytes, bytes], route: str
    ) -> None:
        self._tracer = tracer
        about = {"http.request.method": scope["method"], "url.scheme": scope["scheme"]}
        given = {name: headers.get(name.encode(), b"").decode("latin-1") for name in PROPAGATOR.fields}
        self._span = self._tracer.start_span(
            f"{scope['method']} {route}".rstrip(),
            PROPAGATOR.extract(given, Context()),
            SpanKind.SERVER,
            about | {"http.route": route} if route else about,
        )
        self._within = set_span_in_context(self._span, Context())
        super().__init__(logger, scope, format_trace_id(self._span.get_span_context().trace_id))
        self._hops: dict[str, Hop] = {}
        self._calls = 0
        self._error: str | None = None

    def calls(self, expert: str, entry: ExpertConfig, request: BackendRequest) -> Mapping[str, str]:
        """Begins the span of a call. Gives the headers by which the expert's engine continues the trace."""
        operation, model = OPERATIONS.get(request.path, CHAT), model_of(expert, entry)
        about: Attributes = {OPERATION: operation, PROVIDER: provider_of(entry), MODEL: model}
        self._calls += 1
        span = self._tracer.start_span(
            f"{operation} {model}",
            self._within,
            SpanKind.CLIENT,
            {**about, **asked_for(request), EXPERT: expert, "coe.attempt": self._calls},
        )
        if expert in self._hops:
            self._hops.pop(expert).span.end()
        self._hops[expert] = Hop(span, time.perf_counter())
        headers: dict[str, str] = {}
        PROPAGATOR.inject(headers, set_span_in_context(span, Context()))
        return headers

    def fails(self, error: ApiError) -> None:
        """Ends the span of a call that gave no answer."""
        hop = self._hops.pop(error.expert or "", None)
        if hop is not None:
            end(hop.span, error.code or str(error.status))

    def hears(self, expert: str) -> None:
        """Notes when an answer began. One out of the cache had no call."""
        hop = self._hops.get(expert)
        if hop is not None:
            hop.first_s = time.perf_counter() - hop.began_s

    def ends(self, row: ChatRow) -> None:
        """Ends the spans of a chat's calls, and says what was decided."""
        super().ends(row)
        is_good = row.ending.state is TerminalState.ANSWERED
        error = self._error = None if is_good else row.ending.error_code or row.ending.state.value
        for expert, hop in self._hops.items():
            hop.span.set_attribute(RESPONSE_ID, row.context.decision_id)
            if expert == row.calls.expert:
                answered(hop, row)
            end(hop.span, error)
        self._hops.clear()
        self._span.set_attributes(
            {
                MODEL: row.chat.model[:MAX_MODEL_CHARS],
                RESPONSE_ID: row.context.decision_id,
                DECISION_ID: row.context.decision_id,
                "gen_ai.conversation.id": row.context.session_id,
                "coe.request.id": row.context.request_id,
                "coe.state": row.ending.state.value,
            }
        )
        decision = row.decision
        if decision is not None:
            self._span.set_attributes({**decided(decision), EXPERT: row.calls.expert or decision.expert})

    def retrieved(self, kind: DecisionKind, model: str, at: float, records: Sequence[DecisionRecord]) -> None:
        """Adds the span of a choice of retrieval experts, which ends now."""
        operation, store = OPERATIONS[kind], None
        attributes: Attributes = {OPERATION: operation, PROVIDER: "coe", MODEL: model}
        traces = [record.retrieval for record in records if record.retrieval is not None]
        if traces:
            store = traces[0].store_id
            attributes[EXPERT] = ", ".join(dict.fromkeys(record.served_expert or "" for record in records))
            attributes["coe.reason"] = ", ".join(dict.fromkeys(trace.reason for trace in traces))
            attributes["gen_ai.usage.input_tokens"] = sum(record.usage.prompt_tokens for record in records)
            attributes[DECISION_ID] = records[0].decision_id
        if store is not None:
            attributes["gen_ai.data_source.id"] = store
        name, begin_ns = f"{operation} {store or model}", int(at * 1e9)
        self._tracer.start_span(name, self._within, SpanKind.INTERNAL, attributes, start_time=begin_ns).end()

    def close(self) -> None:
        error = self._error or (str(self._status) if self._status >= 500 else None)
        self._span.set_attributes({"http.response.status_code": self._status} | ({ERROR: error} if error else {}))
        if self._status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
        super().close()


def answered(hop: Hop, row: ChatRow) -> None:
    answer, usage = row.answer, row.answer.usage
    if answer.finish_reason is not None:
        hop.span.set_attribute("gen_ai.response.finish_reasons", [answer.finish_reason])
    hop.span.set_attributes(
        {
            DECISION_ID: row.context.decision_id,
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.of(READ),
            "gen_ai.usage.cache_creation.input_tokens": usage.of(WRITTEN),
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "coe.usage.is_estimated": usage.is_estimated,
        }
    )
    if answer.model is not None:
        hop.span.set_attribute("gen_ai.response.model", answer.model)
    if row.chat.is_stream and hop.first_s is not None:
        hop.span.set_attribute("gen_ai.response.time_to_first_chunk", hop.first_s)


def end(span: Span, error: str | None) -> None:
    """Ends the span of a call, which may have failed."""
    if error is not None:
        span.set_attribute(ERROR, error)
        span.set_status(StatusCode.ERROR)
    span.end()


def model_of(expert: str, entry: ExpertConfig) -> str:
    """The model that an expert's engine is asked for; of a provider's without the provider."""
    if entry.engine is Engine.LITELLM:
        return entry.model.partition("/")[2] or entry.model
    return entry.name_on_engine(expert)


def provider_of(entry: ExpertConfig) -> str:
    """The provider in the words of the conventions; of an engine, its name."""
    if entry.engine is not Engine.LITELLM:
        return entry.engine.value
    provider = entry.model.partition("/")[0]
    return PROVIDERS.get(provider, provider)


def asked_for(request: BackendRequest) -> Attributes:
    """The parameters of a request that are numbers."""
    found: Attributes = {"gen_ai.request.stream": True} if request.is_stream else {}
    for name in SAMPLING:
        value = request.body.get(name)
        if isinstance(value, int | float):
            found[f"gen_ai.request.{name}"] = value
    return found


def decided(decision: RoutingDecision) -> Attributes:
    return {
        "coe.category": decision.category,
        "coe.likely_category": decision.likely_category,
        "coe.confidence": decision.confidence,
        "coe.doubt": decision.uncertainty,
        "coe.is_fallback": decision.is_fallback,
        "coe.policy": decision.policy,
        "coe.reason": decision.reason.value,
        "coe.propensity": decision.propensity,
        "coe.router.version": decision.router_version,
    }


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
