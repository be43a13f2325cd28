"""Following requests: with a JSON line in the program's log, and in `exporting.py` with spans and metrics over OTLP."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping

from prometheus_client.core import Metric

from gateway.asgi import Scope
from gateway.telemetry.request_line import RequestLine, trace_of

FOLLOWED = "/v1/"

silent = logging.Logger("no requests", logging.CRITICAL)


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

    def graded(self, name: str, value: float, decision_id: str) -> None:
        """Takes a grade of an answer, in [0, 1]; lines have none."""

    def metrics(self) -> Iterator[Metric]:
        """The numbers of spans that were exported and lost, for a scrape."""
        return iter(())

    async def aclose(self) -> None:
        """Exports what waits."""
