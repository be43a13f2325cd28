"""Prometheus metrics in a registry of their own. Every label has a bounded set of values: names of experts.yaml,
states, reasons, HTTP statuses."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.http_errors import ApiError, FaultError

OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


SCRAPER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coe-metrics")
"""A thread of its own: while a database hangs, those of `asyncio.to_thread` all wait for it."""


@dataclass
class Used:
    """Sums over the answers of an expert. Plain numbers: to raise a counter of the library takes eight calls."""

    tokens: Counts[str] = field(default_factory=Counts)
    cost_usd: float = 0.0
    seconds: float = 0.0


class Times:
    """A histogram of seconds, in plain numbers too."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s, self._counts, self._sum_s = bounds_s, [0] * (len(bounds_s) + 1), 0.0

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        ends = map(floatToGoString, (*self._bounds_s, math.inf))
        family.add_metric(labels, list(zip(ends, accumulate(self._counts), strict=True)), self._sum_s)


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
        # Of each chat, so plain numbers; keys are the labels.
        self.requests, self.decisions = Counts[tuple[str, int]](), Counts[tuple[str, str, str]]()
        self.overhead = Times(OVERHEAD_BUCKETS_S)
        self.ttft = defaultdict[str, Times](lambda: Times(TTFT_BUCKETS_S))
        self.used = defaultdict[str, Used](Used)
        self.watch(self._of_chats)

    def watch(self, read: Callable[[], Iterable[Metric]]) -> None:
        """Adds metrics that are read at each scrape."""
        self.registry.register(ReadCollector(read))

    def _of_chats(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("coe_requests", "Chat requests by how they ended", labels=["state", "status"])
        decisions = CounterMetricFamily("coe_decisions", "Routing decisions", labels=["category", "expert", "reason"])
        for family, counts in ((requests, self.requests.copy()), (decisions, self.decisions.copy())):
            for labels, count in counts.items():
                family.add_metric([str(label) for label in labels], count)
        about_overhead = "From a request's last byte to the call of its expert"
        overhead = HistogramMetricFamily("coe_overhead_seconds", about_overhead)
        self.overhead.add_to(overhead, ())
        about_ttft = "From a request's arrival to the first byte of its answer"
        ttft = HistogramMetricFamily("coe_ttft_seconds", about_ttft, labels=["expert"])
        for expert, times in self.ttft.copy().items():
            times.add_to(ttft, [expert])
        yield from (requests, decisions, overhead, ttft)
        tokens = CounterMetricFamily("coe_tokens", "Tokens of answers", labels=["expert", "type"])
        cost = CounterMetricFamily("coe_cost_usd", "Cost of answers by the prices of experts.yaml", labels=["expert"])
        seconds = CounterMetricFamily("coe_answer_seconds", "Time that answers took", labels=["expert"])
        for expert, used in self.used.copy().items():
            for kind, count in used.tokens.copy().items():
                tokens.add_metric([expert, kind], count)
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
