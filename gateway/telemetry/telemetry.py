"""Following requests: with spans and metrics over OTLP, a JSON line in the program's log, or both."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from gateway.asgi import Message, Scope, Send
from gateway.exchange import Asked, Outcome
from gateway.http_errors import CLIENT_GONE_STATUS, ApiError
from gateway.telemetry.trace_ids import decision_of, trace_of
from router.config import ExpertConfig
from router.protocols import BackendRequest
from router.types import DecisionKind, DecisionRecord

if TYPE_CHECKING:
    from gateway.telemetry.exporting import Exporting
    from gateway.telemetry.request_spans import RequestSpans

FOLLOWED = "/v1/"
FLUSH_S = 3.0
"""For what waits to be exported when the gateway stops."""

NAMED = ("x-request-id", "x-coe-decision-id", "x-coe-expert")
"""Headers of an answer that say what the request's line says."""

requests = logging.getLogger("coe.requests")


class Telemetry:
    """Follows requests, and tells of grades.

    Args:
        exporting: takes spans, metrics and events; None: none are made.
        has_lines: each request leaves a line in the log.
    """

    def __init__(self, exporting: Exporting | None, *, has_lines: bool) -> None:
        self._exporting, self._has_lines = exporting, has_lines

    def follow(self, scope: Scope, headers: Mapping[bytes, bytes], routes: Collection[str]) -> RequestWatch | None:
        """The watch over a request; None for what no client asked: health and metrics.

        Args:
            routes: paths that are served, or begin what is served.
        """
        path: str = scope["path"]
        if not path.startswith(FOLLOWED):
            return None
        route = next((each for each in (path, "/".join(path.split("/")[:3])) if each in routes), "")
        spans = None if self._exporting is None else self._exporting.request(scope, headers, route)
        return RequestWatch(scope, headers, spans, has_line=self._has_lines)

    def graded(self, name: str, value: float, decision_id: str) -> None:
        """Emits a grade of an answer, in [0, 1], as the event `gen_ai.evaluation.result`."""
        if self._exporting is not None:
            self._exporting.graded(name, value, decision_id)

    def metrics(self) -> Iterator[Metric]:
        """The numbers of what was exported and lost, for a scrape."""
        return iter(()) if self._exporting is None else self._exporting.counted()

    async def aclose(self) -> None:
        """Exports what waits, for at most `FLUSH_S`; a collector that hangs keeps no gateway from stopping."""
        if self._exporting is None:
            return
        closing = threading.Thread(target=self._exporting.close, name="coe-telemetry-end", daemon=True)
        closing.start()
        deadline_s = time.monotonic() + FLUSH_S
        while closing.is_alive() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.01)


class RequestWatch:
    """What is seen of one request; `gateway.exchange.Watch` says how it is told."""

    def __init__(
        self, scope: Scope, headers: Mapping[bytes, bytes], spans: RequestSpans | None, *, has_line: bool
    ) -> None:
        self._method, self._path = scope["method"], scope["path"][:200]
        self._spans, self._has_line = spans, has_line
        self._began_s = time.perf_counter()
        self._status = CLIENT_GONE_STATUS  # unless an answer begins
        self._facts: dict[str, object] = {}
        self._trace_id = trace_of(headers) if spans is None else spans.trace_id
        self.decision_id = None if spans is None else decision_of(spans.trace_id, spans.span_id)

    def watching(self, send: Send) -> Send:
        """A `send` that lets see how the answer begins."""

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                if self._has_line:
                    given = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
                    self._facts |= {name[2:].removeprefix("coe-"): given[name] for name in NAMED if name in given}
            await send(message)

        return seen

    def calls(self, expert: str, entry: ExpertConfig, request: BackendRequest) -> Mapping[str, str]:
        return {} if self._spans is None else self._spans.calls(expert, entry, request)

    def fails(self, error: ApiError) -> None:
        if self._spans is not None:
            self._spans.fails(error)

    def hears(self, expert: str, piece: bytes) -> None:
        if self._spans is not None:
            self._spans.hears(expert, piece)

    def ends(self, asked: Asked, outcome: Outcome) -> None:
        if self._spans is not None:
            self._spans.ends(asked, outcome)
        if self._has_line:
            decision, usage = outcome.decision, outcome.usage
            self._status = outcome.status
            self._facts |= {
                "request-id": asked.request_id,
                "decision-id": asked.decision_id if outcome.is_admitted else None,
                "expert": outcome.expert or (decision.expert if decision else None),
                "category": decision.category if decision else None,
                "state": outcome.state.value,
                "error": outcome.error_code,
                "ttft_ms": None if outcome.ttft_ms is None else round(outcome.ttft_ms, 1),
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
            }

    def retrieved(self, kind: DecisionKind, model: str, at: float, records: Sequence[DecisionRecord]) -> None:
        if self._spans is not None:
            self._spans.retrieved(kind, model, at, records)

    def close(self) -> None:
        """The request has ended, whichever way."""
        if self._spans is not None:
            self._spans.close(self._status)
        if self._has_line:
            facts = {name.replace("-", "_"): value for name, value in self._facts.items() if value is not None}
            latency_ms = round((time.perf_counter() - self._began_s) * 1e3, 1)
            line = {"method": self._method, "path": self._path, "status": self._status, "latency_ms": latency_ms}
            requests.info("request", extra={"fields": {**line, "trace_id": self._trace_id, **facts}})
