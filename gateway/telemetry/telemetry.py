"""Following requests: with spans and metrics over OTLP, a JSON line in the program's log, or both."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from gateway.asgi import Scope
from gateway.telemetry.request_line import RequestLine, trace_of

if TYPE_CHECKING:
    from gateway.telemetry.exporting import Exporting

FOLLOWED = "/v1/"
FLUSH_S = 3.0
"""For what waits to be exported when the gateway stops."""

silent = logging.Logger("no requests", logging.CRITICAL)


class Telemetry:
    """Follows requests, and reports grades.

    Args:
        exporting: takes spans, metrics and events; None: none are made.
        has_lines: each request leaves a line in the log.
    """

    def __init__(self, exporting: Exporting | None, *, has_lines: bool) -> None:
        self._exporting = exporting
        self._logger = logging.getLogger("coe.requests") if has_lines else silent

    def follow(self, scope: Scope, headers: Mapping[bytes, bytes], routes: Collection[str]) -> RequestLine | None:
        """The watch over a request; None for what no client asked: health and metrics.

        Args:
            routes: paths that are served, or begin what is served.
        """
        path: str = scope["path"]
        if not path.startswith(FOLLOWED):
            return None
        if self._exporting is None:
            return RequestLine(self._logger, scope, trace_of(headers))
        route = next((each for each in (path, "/".join(path.split("/")[:3])) if each in routes), "")
        return self._exporting.request(self._logger, scope, headers, route)

    def graded(self, name: str, value: float, decision_id: str) -> None:
        """Emits a grade of an answer, in [0, 1], as the event `gen_ai.evaluation.result`."""
        if self._exporting is not None:
            self._exporting.graded(name, value, decision_id)

    def metrics(self) -> Iterator[Metric]:
        """The numbers of spans that were exported and lost, for a scrape."""
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
