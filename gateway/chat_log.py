"""The rows of chats in the decision log: each is written once, when its answer has ended or just before."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from decision_log.decision_record import DecisionRecord
from decision_log.served_models import is_change, undated
from gateway.exchange import Asked, Outcome, record_of
from gateway.metrics import Metrics
from router.expert_config import ExpertConfig
from router.price_list import entry_prices, listed
from router.usage import READ, WRITTEN, Usage

if TYPE_CHECKING:
    from decision_log.sink import DecisionLog

logger = logging.getLogger(__name__)


class ChatLog:
    """Writes records to the sink, and counts.

    Args:
        served: what answers for experts, and at which prices.
    """

    def __init__(self, sink: DecisionLog, metrics: Metrics, served: ServedModels) -> None:
        self.sink, self.metrics, self.served = sink, metrics, served


class ChatRow:
    """The row of one chat."""

    def __init__(self, log: ChatLog, asked: Asked) -> None:
        self._log, self._asked = log, asked
        self._seq: int | None = None
        self._is_written = False

    def take_number(self) -> int:
        """Its number in the log. Taken before the client sees the end: from now on the log would miss the row."""
        if self._seq is None:
            self._seq = self._log.sink.next_seq()
        return self._seq

    async def commit(self, outcome: Outcome) -> None:
        """Makes the row safe before the end of an answer, where the log's mode asks for that.

        Otherwise it gets its number only, and `finish` writes it.

        Raises:
            StoreError: it did not become safe in time.
        """
        if not outcome.is_admitted or self._is_written:
            return
        if self._log.sink.is_durable:
            self._is_written = True
            await self._log.sink.commit(self._record(outcome))
        else:
            self.take_number()

    def finish(self, outcome: Outcome) -> None:
        """Counts the chat and writes its row, once its last byte is out."""
        self._count(outcome)
        if outcome.is_admitted and not self._is_written:
            self._log.sink.append(self._record(outcome))

    def _count(self, outcome: Outcome) -> None:
        metrics, decision, served = self._log.metrics, outcome.decision, outcome.answered_by
        metrics.requests[outcome.state, outcome.status] += 1
        if decision is None:
            return
        metrics.decisions[decision.category, decision.expert, decision.reason] += 1
        metrics.overhead.note(outcome.overhead_ms / 1e3)
        if served is None:
            return
        if outcome.ttft_ms is not None:
            metrics.ttft[served].note(outcome.ttft_ms / 1e3)
        if served != decision.expert and outcome.strategy is None:
            metrics.failovers.labels(decision.expert).inc()

    def _record(self, outcome: Outcome) -> DecisionRecord:
        record = record_of(
            self._asked,
            outcome,
            experts=self._log.served.entries,
            replica=self._log.sink.replica,
            seq=self.take_number(),
            latency_ms=self._asked.elapsed_ms(),
        )
        trace = record.strategy
        for call in () if trace is None else trace.calls:
            self._use(call.expert, call.usage, call.cost_usd, call.latency_ms)
        if record.served_expert is not None and (trace is None or not trace.is_settled):
            own_usd = record.cost_usd - (0.0 if trace is None else trace.cost_usd)
            self._use(record.served_expert, record.usage, own_usd, record.latency_ms)
        return record

    def _use(self, expert: str, usage: Usage, cost_usd: float, latency_ms: float) -> None:
        used = self._log.metrics.used[expert]
        read, written = (usage.of(READ), usage.of(WRITTEN)) if usage.kinds else (0, 0)
        used.tokens["input"] += usage.prompt_tokens - read - written
        used.tokens["output"] += usage.completion_tokens
        if usage.kinds:
            used.tokens["cache_read"] += read
            used.tokens["cache_write"] += written
        used.cost_usd += cost_usd
        used.seconds += latency_ms / 1e3


class ServedModels:
    """Made again with each configuration. `now` is the name that each expert answered with last, None before the first
    answer; `entries` are those of experts.yaml at the prices of what serves."""

    def __init__(self, experts: Mapping[str, ExpertConfig], metrics: Metrics) -> None:
        self._experts, self._metrics = experts, metrics
        self.entries: dict[str, ExpertConfig] = dict(experts)
        self.now: dict[str, str | None] = dict.fromkeys(experts)

    def heard(self, expert: str, model: str) -> None:
        """An answer of the expert names another model than the one before."""
        before = self.now[expert]
        if before is not None and undated(before) == model:
            return
        self.now[expert] = model
        self.entries[expert] = priced(self._experts[expert], model)
        if before is not None and is_change(before, model):
            self._metrics.model_changes.labels(expert).inc()
            logger.warning(
                "expert %s: its answers name model %r where they named %r; what was learned before no longer counts",
                *(expert, model, before),
            )


def priced(entry: ExpertConfig, model: str) -> ExpertConfig:
    """The entry at the list price of a model that serves in the place of its own: one that litellm's table knows under
    another name, at another price."""
    is_same = undated(entry.model.rpartition("/")[2]) == undated(model.rpartition("/")[2])
    if is_same or not entry.chat_price.most(1, 1):
        return entry
    asked, served = (entry_prices(listed(name)) for name in (entry.model, model))
    if not asked or not served or asked == served:
        return entry
    own = entry.model_dump(exclude={"cost", "price", "price_in_per_m_usd", "price_out_per_m_usd"})
    return ExpertConfig.model_validate({**own, **served})
