"""The rows of chats in the decision log, each written once, when its answer has ended or just before; and what
is counted of them."""

from __future__ import annotations

import logging
import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from coe.decision_log.decision_record import DecisionRecord, StrategyTrace, is_change, undated
from coe.gateway.exchange import MAX_MODEL_CHARS, ChatRow
from coe.router.config.expert import ExpertConfig
from coe.router.prices.cost import Price, cost
from coe.router.prices.price_list import entry_prices, price_entry
from coe.router.prices.usage import READ, WRITTEN, Usage

if TYPE_CHECKING:
    from coe.decision_log.sink import DecisionLog
    from coe.gateway.metrics import Metrics

OVERHEAD_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
TTFT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

logger = logging.getLogger(__name__)


class ChatLog:
    """Writes records to the sink, and counts.

    Args:
        served: what answers for experts, and at which prices.
    """

    def __init__(self, sink: DecisionLog, metrics: Metrics, counts: ChatCounts, served: ServedModels) -> None:
        self.sink, self.metrics, self.counts, self.served = sink, metrics, counts, served

    async def commit(self, row: ChatRow) -> None:
        """Makes a row safe before the end of an answer, where the log's mode asks for that.

        Otherwise it gets its number only, because from now on the log would miss it, and `finish` writes it.

        Raises:
            StoreError: it did not become safe in time.
        """
        if not row.is_admitted or row.seq is not None:
            return
        row.seq = self.sink.next_seq()
        if self.sink.is_durable:
            await self.sink.commit(self._record(row))

    def finish(self, row: ChatRow) -> None:
        """Counts the chat and writes its row, once its last byte is out."""
        self._count(row)
        is_safe = self.sink.is_durable and row.seq is not None
        if row.is_admitted and not is_safe:
            self.sink.append(self._record(row))

    def _count(self, row: ChatRow) -> None:
        counts, decision, served, ending = self.counts, row.decision, row.answered_by, row.ending
        counts.requests[ending.state, ending.status] += 1
        if decision is None:
            return
        counts.decisions[decision.category, decision.expert, decision.reason] += 1
        counts.overhead.note(row.calls.overhead_ms / 1e3)
        if served is None:
            return
        if row.answer.ttft_ms is not None:
            counts.ttft[served].note(row.answer.ttft_ms / 1e3)
        if served != decision.expert and row.calls.strategy is None:
            self.metrics.failovers.labels(decision.expert).inc()

    def _record(self, row: ChatRow) -> DecisionRecord:
        """The record, whose uses of experts are counted with it."""
        seq = self.sink.next_seq() if row.seq is None else row.seq
        record = record_of(row, self.served.entries, self.sink.replica, seq)
        trace = record.strategy
        for call in () if trace is None else trace.calls:
            self._use(call.expert, call.usage, call.cost_usd, call.latency_ms)
        if record.served_expert is not None and (trace is None or not trace.is_settled):
            own_usd = record.cost_usd - (0.0 if trace is None else trace.cost_usd)
            self._use(record.served_expert, record.usage, own_usd, record.latency_ms)
        return record

    def _use(self, expert: str, usage: Usage, cost_usd: float, latency_ms: float) -> None:
        used = self.counts.used[expert]
        read, written = (usage.of(READ), usage.of(WRITTEN)) if usage.kinds else (0, 0)
        used.tokens["input"] += usage.prompt_tokens - read - written
        used.tokens["output"] += usage.completion_tokens
        if usage.kinds:
            used.tokens["cache_read"] += read
            used.tokens["cache_write"] += written
        used.cost_usd += cost_usd
        used.seconds += latency_ms / 1e3


def record_of(row: ChatRow, experts: Mapping[str, ExpertConfig], replica: str, seq: int) -> DecisionRecord:
    """The row as the log takes it. The sink decides what it keeps of the text and of the decision."""
    context, chat, served, answer, ending = row.context, row.chat, row.answered_by, row.answer, row.ending
    decided, calls, usage = row.decided, row.calls, answer.usage
    if served is None and calls.at_work is not None:  # who has read the prompt at least
        usage = Usage(prompt_tokens=chat.facts.prompt_tokens, is_estimated=True)
    asked = experts.get(served or calls.at_work or "")
    of_decision: dict[str, Any] = {"decision": row.decision}
    if decided is not None:
        of_decision["inputs"], of_decision["embedding"] = decided.inputs, decided.embedding
    return DecisionRecord(
        decision_id=context.decision_id,
        request_id=context.request_id,
        replica=replica,
        seq=seq,
        at=context.at,
        requested_model=chat.model[:MAX_MODEL_CHARS],
        state=ending.state,
        served_expert=served,
        served_model=answer.model,
        failures=calls.failures,
        engine=answer.engine,
        status=ending.status,
        error_code=ending.error_code,
        finish_reason=answer.finish_reason,
        is_stream=chat.is_stream,
        usage=usage,
        cost_usd=cost_of(calls.strategy, usage, asked, context.is_batch),
        ttft_ms=answer.ttft_ms,
        latency_ms=context.elapsed_ms(),
        overhead_ms=calls.overhead_ms,
        session_id=context.session_id,
        key_id=context.caller.key_id,
        is_probe=context.is_probe,
        turns=chat.facts.turns,
        loop=chat.facts.loop,
        prompt_chars=chat.facts.prompt_chars,
        text=chat.text,
        strategy=calls.strategy,
        **of_decision,
    )


def cost_of(trace: StrategyTrace | None, usage: Usage, served: ExpertConfig | None, is_batch: bool) -> float:
    """USD of all calls: those of a strategy, and that of the expert that served without one."""
    several = 0.0 if trace is None else trace.cost_usd
    return several if trace is not None and trace.is_settled else several + cost_usd(usage, served, is_batch)


def cost_usd(usage: Usage, expert: ExpertConfig | None, is_batch: bool = False) -> float:
    """Price of one answer."""
    return 0.0 if expert is None or expert.is_free else cost(usage, rates(expert, is_batch))


def rates(expert: ExpertConfig, is_batch: bool) -> Price:
    """An expert's prices of chats, or of lines of batches."""
    return expert.batch_price if is_batch else expert.chat_price


class ServedModels:
    """Made again with each configuration. `now` is the name that each expert answered with last, None before the first
    answer; `entries` are those of experts.yaml at the prices of what serves."""

    def __init__(self, experts: Mapping[str, ExpertConfig], metrics: Metrics) -> None:
        self._experts, self._metrics = experts, metrics
        self.entries: dict[str, ExpertConfig] = dict(experts)
        self.now: dict[str, str | None] = dict.fromkeys(experts)

    def named(self, expert: str, model: str) -> str | None:
        """Takes the model that an answer of the expert names; gives it in the length that the log keeps."""
        name = model[:MAX_MODEL_CHARS]
        if name and name != self.now[expert]:
            self._heard(expert, name)
        return name or None

    def _heard(self, expert: str, model: str) -> None:
        """An answer of the expert names another model than the one before."""
        before = self.now[expert]
        if before is not None and undated(before) == model:
            return
        self.now[expert] = model
        self.entries[expert] = priced(self._experts[expert], model)
        if before is not None and is_change(before, model):
            self._metrics.model_changed(expert)
            logger.warning(
                "expert %s: its answers name model %r where they named %r; what was learned before no longer counts",
                *(expert, model, before),
            )


def priced(entry: ExpertConfig, model: str) -> ExpertConfig:
    """The entry at the list price of a model that serves in the place of its own: one that litellm's table knows under
    another name, at another price."""
    is_same = undated(entry.model.rpartition("/")[2]) == undated(model.rpartition("/")[2])
    if is_same or entry.is_free:
        return entry
    asked, served = (entry_prices(price_entry(name)) for name in (entry.model, model))
    if not asked or not served or asked == served:
        return entry
    own = entry.model_dump(exclude={"cost", "price", "price_above", "price_batch"})
    return ExpertConfig.model_validate({**own, **served})


@dataclass
class Used:
    """Sums over the answers of an expert."""

    tokens: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    seconds: float = 0.0


class Times:
    """A histogram of seconds."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s, self._counts, self._sum_s = bounds_s, [0] * (len(bounds_s) + 1), 0.0

    def note(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._sum_s += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        ends = map(floatToGoString, (*self._bounds_s, math.inf))
        family.add_metric(labels, list(zip(ends, accumulate(self._counts), strict=True)), self._sum_s)


class ChatCounts:
    """The metrics of chats, as plain numbers by their labels: to raise a counter of the library takes eight calls."""

    def __init__(self) -> None:
        self.requests, self.decisions = Counter[tuple[str, int]](), Counter[tuple[str, str, str]]()
        self.overhead = Times(OVERHEAD_BUCKETS_S)
        self.ttft = defaultdict[str, Times](lambda: Times(TTFT_BUCKETS_S))
        self.used = defaultdict[str, Used](Used)

    def families(self) -> Iterator[Metric]:
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
