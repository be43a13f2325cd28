"""Prometheus metrics in a registry of their own. Every label has a bounded set of values: names of experts.yaml,
states, reasons, HTTP statuses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.http_errors import ApiError, FaultError

OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Used:
    """Sums over the answers of an expert. Plain numbers: to raise a counter of the library takes eight calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0


class Metrics:
    """Counters of the request path, and a way to add what other parts count themselves."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self.requests = counter("coe_requests", "Chat requests by how they ended", ["state", "status"])
        self.refusals = counter("coe_refusals", "Requests refused before routing, by status", ["status"])
        self.faults = counter("coe_faults", "Unforeseen errors, at the request edge")
        about_overhead = "From a request's last byte to the call of its expert"
        self.overhead = histogram("coe_overhead_seconds", about_overhead, buckets=OVERHEAD_BUCKETS_S)
        about_ttft = "From a request's arrival to the first byte of its answer"
        self.ttft = histogram("coe_ttft_seconds", about_ttft, ["expert"], buckets=TTFT_BUCKETS_S)
        self.decisions = counter("coe_decisions", "Routing decisions", ["category", "expert", "reason"])
        self.failovers = counter("coe_failovers", "Answers by another expert than the one decided", ["expert"])
        about_changes = "Answers that name another model than the expert's answers before"
        self.model_changes = counter("coe_served_model_changes", about_changes, ["expert"])
        self.feedback = counter("coe_feedback", "Feedback by what became of it", ["kind", "status"])
        self.used: defaultdict[str, Used] = defaultdict(Used)
        self.watch(self._usage)

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Adds metrics that are read at each scrape."""
        self.registry.register(ReadCollector(read))

    def _usage(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily("coe_tokens", "Tokens of answers", labels=["expert", "type"])
        cost = CounterMetricFamily("coe_cost_usd", "Cost of answers by the prices of experts.yaml", labels=["expert"])
        seconds = CounterMetricFamily("coe_answer_seconds", "Time that answers took", labels=["expert"])
        for expert, used in self.used.copy().items():
            tokens.add_metric([expert, "input"], used.input_tokens)
            tokens.add_metric([expert, "output"], used.output_tokens)
            cost.add_metric([expert], used.cost_usd)
            seconds.add_metric([expert], used.seconds)
        yield from (tokens, cost, seconds)

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
