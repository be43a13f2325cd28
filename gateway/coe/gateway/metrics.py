"""Prometheus metrics in a registry of their own. Every label has a bounded set of values: names of experts.yaml,
states, reasons, HTTP statuses. What parts of the gateway count themselves is read from them at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coe.fleet.calls.replicas import BreakerState
from coe.fleet.certificate import STATES, VALID
from coe.fleet.learning import ROUND_ENDS, Learning
from coe.fleet.residency.types import Residency
from coe.gateway.http_errors import ApiError, FaultError

if TYPE_CHECKING:
    from coe.decision_log.sink import DecisionLog
    from coe.fleet.calls.pool import ExpertPool
    from coe.fleet.certificate import Standing
    from coe.fleet.residency.controller import Controller
    from coe.fleet.router_registry import Registry
    from coe.gateway.http.admission import BodyLimits, ConcurrencyLimit
    from coe.gateway.routers.live_router import LiveRouter
    from coe.gateway.routers.trial_watch import TrialWatch

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
        self.replaced_models = set[str]()  # experts that were counted there
        self.feedback = counter("coe_feedback", "Feedback by what became of it", ["kind", "status"])
        choices = "Choices of a retrieval expert"
        self.retrieval_decisions = counter("coe_retrieval_decisions", choices, ["expert", "reason"])
        about_time, buckets = "From a request's arrival to its answer", RETRIEVAL_SECONDS
        self.retrieval_seconds = Histogram(
            "coe_retrieval_seconds", about_time, ["kind"], buckets=buckets, registry=registry
        )

    def model_changed(self, expert: str) -> None:
        """Counts that the answers of an expert name another model than before."""
        self.model_changes.labels(expert).inc()
        self.replaced_models.add(expert)

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


def log_metrics(sink: DecisionLog) -> Iterator[Metric]:
    stats = sink.stats()
    for name in ("appended", "spooled", "streamed", "dropped"):
        yield CounterMetricFamily(f"coe_log_{name}", f"Decision log: {name}", value=getattr(stats, name))
    yield GaugeMetricFamily("coe_log_pending", "Decisions not yet in the stream", value=stats.pending)
    yield GaugeMetricFamily("coe_log_ok", "1 while decisions reach SQL", value=stats.last_error is None)


def admission_metrics(concurrency: ConcurrencyLimit, bodies: BodyLimits) -> Iterator[Metric]:
    yield GaugeMetricFamily("coe_running_requests", "Chat requests in work", value=concurrency.running)
    help_text = "Memory that request bodies over 64 KiB have taken"
    yield GaugeMetricFamily("coe_body_bytes", help_text, value=bodies.held_bytes)


def router_metrics(live: LiveRouter) -> Iterator[Metric]:
    yield CounterMetricFamily("coe_router_loads", "Routers swapped in", value=live.loads)
    yield CounterMetricFamily("coe_router_refusals", "Promoted routers refused", value=live.refusals)
    share = live.trial.share if live.trial else 0.0
    yield GaugeMetricFamily("coe_router_trial", "1 while a router is on trial", value=live.trial is not None)
    yield GaugeMetricFamily(
        "coe_router_trial_share", "Share of the conversations that the router on trial serves", value=share
    )
    help_text = "Candidates taken back because they could not decide"
    yield CounterMetricFamily("coe_router_faulty_trials", help_text, value=live.withdrawals)


def certificate_metrics(found: Standing | None) -> Iterator[Metric]:
    """The state of the certificate, all 0 where there is none, and the end of one that is valid."""
    states = GaugeMetricFamily("coe_certificate", "1 for the state that the certificate is in", labels=["state"])
    for state in STATES:
        states.add_metric([state], float(found is not None and found.state == state))
    yield states
    if found is not None and found.state == VALID:
        until = datetime.fromisoformat(found.certificate.until).timestamp()
        yield GaugeMetricFamily("coe_certificate_until_seconds", "Unix time at which it ends", value=until)


def expert_metrics(pool: ExpertPool) -> Iterator[Metric]:
    experts = GaugeMetricFamily("coe_expert_state", "1 for the state an expert is in", labels=["expert", "state"])
    for name in pool.names:
        for possible in BreakerState:
            experts.add_metric([name, possible.value], float(pool.state(name) is possible))
    yield experts


def residency_metrics(controller: Controller) -> Iterator[Metric]:
    """Engines by the name of their first expert."""
    from coe.fleet.residency.controller import Made

    engines = controller.scheduler.states
    states = GaugeMetricFamily("coe_engine_state", "1 for the state an engine is in", labels=["engine", "state"])
    for name, state in engines.items():
        for possible in Residency:
            states.add_metric([name, possible.value], float(state is possible))
    made = CounterMetricFamily("coe_engine_changes", "Changes of an engine's state", labels=["engine", "state"])
    failed = CounterMetricFamily("coe_engine_change_failures", "Those that failed", labels=["engine", "state"])
    seconds = CounterMetricFamily(
        "coe_engine_change_seconds", "Time that changes of engines took", labels=["engine", "state"]
    )
    for key in product(engines, (Residency.AWAKE, Residency.SLEEP_1, Residency.SLEEP_2, Residency.STOPPED)):
        found, labels = controller.made.get(key, Made()), [*key]
        made.add_metric(labels, found.count)
        failed.add_metric(labels, found.failed)
        seconds.add_metric(labels, found.seconds)
    yield from (states, made, failed, seconds)
    yield GaugeMetricFamily("coe_engine_waiting_requests", "Requests that wait for an engine", value=controller.waiting)


def trial_metrics(trials: TrialWatch) -> Iterator[Metric]:
    finding = trials.finding
    log_e = GaugeMetricFamily("coe_trial_log_e", "Evidence that the candidate is worse", labels=["question"])
    for question in ("reward", "failures") if finding is not None else ():
        log_e.add_metric([question], getattr(finding, question))
    yield log_e
    yield CounterMetricFamily(
        "coe_trial_withdrawals", "Candidates taken back because they are worse", value=trials.withdrawals
    )


def learning_metrics(learning: Learning | None, routers: Registry) -> Iterator[Metric]:
    """Metrics of learning: on or off here, how its rounds ended, and the verdict of the last one of any process."""
    is_on = learning is not None and learning.is_on
    yield GaugeMetricFamily("coe_learning", "1 while this gateway runs coe retrain on a schedule", value=is_on)
    rounds = CounterMetricFamily("coe_learning_rounds", "Rounds of coe retrain by their end", labels=["end"])
    for end in ROUND_ENDS:
        rounds.add_metric([end], 0 if learning is None else learning.ends[end])
    yield rounds
    help_text = "Unix time of the last completed round of coe retrain, whoever ran it"
    last = GaugeMetricFamily("coe_learning_last_round_seconds", help_text, labels=["verdict"])
    if (found := routers.last_round()) is not None:
        last.add_metric([found[1]], found[0])
    yield last
