"""Prometheus metrics in a registry of their own. Every label has a bounded set of values: names of experts.yaml,
states, reasons, HTTP statuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet.breaker import BreakerState
from gateway.exchange import Exchange

if TYPE_CHECKING:
    from gateway.drift_watch import DriftWatch
    from gateway.state import GatewayState
    from gateway.trial_watch import TrialWatch

OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """What the request path counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "coe_requests",
            "Chat requests by how they ended",
            ["state", "status"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "coe_refusals", "Requests refused before routing, by status", ["status"], registry=self.registry
        )
        self.faults = Counter("coe_faults", "Errors that nobody foresaw, at the request edge", registry=self.registry)
        self.overhead = Histogram(
            "coe_overhead_seconds",
            "From a request's last byte to the call of its expert",
            buckets=OVERHEAD_BUCKETS_S,
            registry=self.registry,
        )
        self.ttft = Histogram(
            "coe_ttft_seconds",
            "From a request's arrival to the first byte of its answer",
            ["expert"],
            buckets=TTFT_BUCKETS_S,
            registry=self.registry,
        )
        self.decisions = Counter(
            "coe_decisions",
            "Routing decisions",
            ["category", "expert", "reason"],
            registry=self.registry,
        )
        self.failovers = Counter(
            "coe_failovers", "Answers by another expert than the one decided", ["expert"], registry=self.registry
        )
        self.feedback = Counter(
            "coe_feedback", "Feedback by what became of it", ["kind", "status"], registry=self.registry
        )
        self.running = Gauge("coe_running_requests", "Chat requests in work", registry=self.registry)

    def watch(self, state: GatewayState) -> None:
        """Adds what other parts count themselves, read at each scrape."""
        self.registry.register(StateCollector(state))
        self.running.set_function(lambda: state.admission.running)

    def watch_learning(self, trials: TrialWatch, drift: DriftWatch) -> None:
        """Adds what the watches over a router on trial and over drift have found."""
        self.registry.register(LearningCollector(trials, drift))

    def observe(self, exchange: Exchange) -> None:
        """Counts a finished exchange."""
        self.requests.labels(exchange.state.value, str(exchange.status)).inc()
        decision = exchange.decision
        if decision is None:
            return
        self.decisions.labels(decision.category, decision.expert, decision.reason.value).inc()
        self.overhead.observe(exchange.overhead_ms / 1e3)
        served = exchange.answered_by
        if served is None:
            return
        if exchange.ttft_ms is not None:
            self.ttft.labels(served).observe(exchange.ttft_ms / 1e3)
        if served != decision.expert:
            self.failovers.labels(decision.expert).inc()

    def text(self) -> bytes:
        """The exposition format, version 0.0.4."""
        return generate_latest(self.registry)


class LearningCollector(Collector):
    """The evidence against a router on trial, and drift."""

    def __init__(self, trials: TrialWatch, drift: DriftWatch) -> None:
        self._trials = trials
        self._drift = drift

    def collect(self) -> Iterator[Metric]:
        finding = self._trials.finding
        log_e = GaugeMetricFamily("coe_trial_log_e", "Evidence that the candidate is worse", labels=["question"])
        for question in ("reward", "failures") if finding is not None else ():
            log_e.add_metric([question], getattr(finding, question))
        yield log_e
        yield CounterMetricFamily("coe_trial_withdrawals", "Candidates taken back", value=self._trials.withdrawals)
        alarms = CounterMetricFamily("coe_drift_alarms", "Changes of what should stay level", labels=["signal"])
        for signal, count in sorted(self._drift.alarms.items()):
            alarms.add_metric([signal], count)
        yield alarms
        yield CounterMetricFamily("coe_rewards", "Rewards compared with predictions", value=self._drift.rewards)
        if self._drift.accuracy is not None:
            help_text = "Share of rewards that were predicted right, since the last change"
            yield GaugeMetricFamily("coe_prequential_accuracy", help_text, value=self._drift.accuracy)


class StateCollector(Collector):
    """The log's counters, the experts' breakers and reloads of the router and the pilot library."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        stats = self._state.sink.stats()
        for name in ("appended", "spooled", "streamed", "gaps", "dropped", "damaged"):
            yield CounterMetricFamily(f"coe_log_{name}", f"Decision log: {name}", value=getattr(stats, name))
        yield GaugeMetricFamily("coe_log_pending", "Decisions not yet in the stream", value=stats.pending)
        yield GaugeMetricFamily("coe_log_ok", "1 while spool and stream work", value=stats.last_error is None)
        held_bytes = self._state.intake.held_bytes
        yield GaugeMetricFamily("coe_body_bytes", "Memory that request bodies over 64 KiB have taken", value=held_bytes)
        live = self._state.live
        yield CounterMetricFamily("coe_router_loads", "Routers swapped in", value=live.loads)
        share = live.trial.share if live.trial else 0.0
        yield GaugeMetricFamily("coe_router_trial", "1 while a router is on trial", value=live.trial is not None)
        yield GaugeMetricFamily("coe_router_trial_share", "Share of the conversations that it serves", value=share)
        left_out = self._state.shadows.left_out
        yield CounterMetricFamily("coe_shadow_left_out", "Shadow decisions left out", value=left_out)
        judge = self._state.judge
        if judge is not None:
            yield CounterMetricFamily("coe_judged", "Answers that a judge graded", value=judge.judged)
            yield CounterMetricFamily("coe_judge_left_out", "Sampled answers that it did not", value=judge.left_out)
        yield CounterMetricFamily("coe_router_refusals", "Promoted routers refused", value=live.refusals)
        pilots = None if self._state.retrieval is None else self._state.retrieval.pilots
        if pilots is not None:
            yield CounterMetricFamily("coe_pilots_loads", "Pilot libraries taken over", value=pilots.loads)
            yield CounterMetricFamily("coe_pilots_refusals", "Pilot libraries refused", value=pilots.refusals)
        experts = GaugeMetricFamily("coe_expert_state", "1 for the state an expert is in", labels=["expert", "state"])
        for name in self._state.pool.names:
            for possible in BreakerState:
                experts.add_metric([name, possible.value], float(self._state.pool.state(name) is possible))
        yield experts
