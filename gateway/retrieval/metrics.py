"""Prometheus metrics of retrieval. Labels are kinds of requests, statuses, names of experts.yaml and reasons."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RetrievalMetrics:
    """What retrieval requests count, in the gateway's registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter("coe_retrieval_requests", "Retrieval requests", ["kind", "status"], registry=registry)
        self.decisions = Counter(
            "coe_retrieval_decisions", "Choices of a retrieval expert", ["expert", "reason"], registry=registry
        )
        self.seconds = Histogram(
            "coe_retrieval_seconds",
            "From a request's arrival to its answer",
            ["kind"],
            buckets=SECONDS_BUCKETS,
            registry=registry,
        )
