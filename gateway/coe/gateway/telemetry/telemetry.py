"""Following requests: with a JSON line in the program's log, and in `request_spans.py` with spans over OTLP."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Mapping
from logging import Logger

from coe.gateway.exchange import ChatRow, Watch
from coe.gateway.http.asgi import Message, Scope, Send
from coe.gateway.http_errors import CLIENT_GONE_STATUS

FOLLOWED = "/v1/"
MAX_PATH_CHARS = 200
NAMED = {b"x-request-id": "request_id", b"x-coe-decision-id": "decision_id", b"x-coe-expert": "expert"}
"""Headers of an answer that say what the line says."""

TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")

silent = logging.Logger("no requests", logging.CRITICAL)


class RequestLine(Watch):
    """Facts of one request, for its line. Nothing of what was asked or answered is among them."""

    def __init__(self, logger: Logger, scope: Scope, trace_id: str | None) -> None:
        self._logger, self._began_s = logger, time.perf_counter()
        self._status = CLIENT_GONE_STATUS  # unless an answer begins
        self._facts: dict[str, object] = {"method": scope["method"], "path": scope["path"][:MAX_PATH_CHARS]}
        self._facts["trace_id"] = trace_id

    def watching(self, send: Send) -> Send:
        """A `send` that lets see how the answer begins."""

        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                self._facts |= {NAMED[name]: value.decode() for name, value in message["headers"] if name in NAMED}
            await send(message)

        return seen

    def ends(self, row: ChatRow) -> None:
        decision, ttft_ms, usage = row.decision, row.answer.ttft_ms, row.answer.usage
        self._status = row.ending.status
        self._facts |= {
            "request_id": row.context.request_id,
            "decision_id": row.context.decision_id if row.is_admitted else None,
            "expert": row.calls.expert or (decision.expert if decision else None),
            "category": decision.category if decision else None,
            "state": row.ending.state.value,
            "error": row.ending.error_code,
            "ttft_ms": None if ttft_ms is None else round(ttft_ms, 1),
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
        }

    def close(self) -> None:
        """The request has ended, whichever way."""
        latency_ms = round((time.perf_counter() - self._began_s) * 1e3, 1)
        facts = {**self._facts, "status": self._status, "latency_ms": latency_ms}
        known = {name: value for name, value in facts.items() if value is not None}
        self._logger.info("request", extra={"fields": known})


class Telemetry:
    """Follows requests with lines alone.

    Args:
        has_lines: each request leaves a line in the log.
    """

    def __init__(self, *, has_lines: bool) -> None:
        self._logger = logging.getLogger("coe.requests") if has_lines else silent

    def follow(self, scope: Scope, headers: Mapping[bytes, bytes], routes: Collection[str]) -> RequestLine | None:
        """The watch over a request, which begins now; None for what no client asked: health and metrics.

        Args:
            routes: paths that are served, or begin what is served.
        """
        path: str = scope["path"]
        return self._watch(scope, headers, routes) if path.startswith(FOLLOWED) else None

    def _watch(self, scope: Scope, headers: Mapping[bytes, bytes], routes: Collection[str]) -> RequestLine:
        return RequestLine(self._logger, scope, trace_of(headers))

    async def aclose(self) -> None:
        """Exports what waits."""


def trace_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The trace that a client's request belongs to, by the header of W3C Trace Context."""
    found = TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return None if found is None else found[1].decode()
