"""Prometheus metrics in a registry of their own. Every label has a bounded set of values: names of experts.yaml,
states, reasons, HTTP statuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from coe.gateway.http_errors import ApiError, FaultError

SCRAPER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-metrics")
"""A thread of its own: while a database hangs, those of `asyncio.to_thread` all wait for it."""

RETRIEVAL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of the request path, and a way to add what other parts count themselves."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series of each counter: when it was made
        registry = self.registry = CollectorRegistry()
        counter = partial(Counter, registry=registry)
        self.refusals = counter("coe_refusals", "Requests refused before routing, by status", ["status"])
        self.faults = counter("coe_faults", "Unforeseen errors, at the request edge")
        self.full = counter("coe_connections_over_limit", "Connections closed or refused for gateway.max_connections")
        self.failovers = counter("coe_failovers", "Answers by another expert than the one decided", ["expert"])
        about_changes = "Answers that name another model than the expert's answers before"
        self.model_changes = counter("coe_served_model_changes", about_changes, ["expert"])
        self.feedback = counter("coe_feedback", "Feedback by what became of it", ["kind", "status"])
        choices = "Choices of a retrieval expert"
        self.retrieval_decisions = counter("coe_retrieval_decisions", choices, ["expert", "reason"])
        about_time, buckets = "From a request's arrival to its answer", RETRIEVAL_SECONDS
        self.retrieval_seconds = Histogram(
            "coe_retrieval_seconds", about_time, ["kind"], buckets=buckets, registry=registry
        )

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Adds metrics that are read at each scrape."""
        self.registry.register(ReadCollector(read))

    def failed(self, error: ApiError) -> None:
        """Counts an error that a client gets, if it was unforeseen."""
        if isinstance(error, FaultError):
            self.faults.inc()

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)


class ReadCollector(Collector):
    """Metrics that a function gives."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()
