"""The rows of chats in the decision log: each is written once, when its answer has ended or just before."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from decision_log.decision_record import DecisionRecord, StrategyTrace
from decision_log.served_models import is_change, undated
from gateway.exchange import MAX_MODEL_CHARS, ChatRow
from router.brief_decision import brief
from router.cost import cost
from router.expert_config import ExpertConfig
from router.price_list import entry_prices, listed
from router.usage import READ, WRITTEN, Usage

if TYPE_CHECKING:
    from decision_log.sink import DecisionLog
    from gateway.metrics import Metrics

logger = logging.getLogger(__name__)


class ChatLog:
    """Writes records to the sink, and counts.

    Args:
        served: what answers for experts, and at which prices.
    """

    def __init__(self, sink: DecisionLog, metrics: Metrics, served: ServedModels) -> None:
        self.sink, self.metrics, self.served = sink, metrics, served

    async def commit(self, row: ChatRow) -> None:
        """Makes a row safe before the end of an answer, where the log's mode asks for that.

        Otherwise it gets its number only, because from now on the log would miss it, and `finish` writes it.

        Raises:
            StoreError: it did not become safe in time.
        """
        if not row.is_admitted or row.is_written:
            return
        if self.sink.is_durable:
            row.is_written = True
            await self.sink.commit(self._record(row))
        elif row.seq is None:
            row.seq = self.sink.next_seq()

    def finish(self, row: ChatRow) -> None:
        """Counts the chat and writes its row, once its last byte is out."""
        self._count(row)
        if row.is_admitted and not row.is_written:
            self.sink.append(self._record(row))

    def _count(self, row: ChatRow) -> None:
        metrics, decision, served = self.metrics, row.decision, row.answered_by
        metrics.requests[row.state, row.status] += 1
        if decision is None:
            return
        metrics.decisions[decision.category, decision.expert, decision.reason] += 1
        metrics.overhead.note(row.overhead_ms / 1e3)
        if served is None:
            return
        if row.ttft_ms is not None:
            metrics.ttft[served].note(row.ttft_ms / 1e3)
        if served != decision.expert and row.strategy is None:
            metrics.failovers.labels(decision.expert).inc()

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
        used = self.metrics.used[expert]
        read, written = (usage.of(READ), usage.of(WRITTEN)) if usage.kinds else (0, 0)
        used.tokens["input"] += usage.prompt_tokens - read - written
        used.tokens["output"] += usage.completion_tokens
        if usage.kinds:
            used.tokens["cache_read"] += read
            used.tokens["cache_write"] += written
        used.cost_usd += cost_usd
        used.seconds += latency_ms / 1e3


def record_of(row: ChatRow, experts: Mapping[str, ExpertConfig], replica: str, seq: int) -> DecisionRecord:
    """The row as the log takes it. The sink decides what it keeps of the text."""
    context, chat, served, usage = row.context, row.chat, row.answered_by, row.usage
    if served is None and row.calls.at_work is not None:  # who has read the prompt at least
        usage = Usage(prompt_tokens=chat.facts.prompt_tokens, is_estimated=True)
    asked = experts.get(served or row.calls.at_work or "")
    return DecisionRecord(
        decision_id=context.decision_id,
        request_id=context.request_id,
        replica=replica,
        seq=seq,
        at=row.at,
        requested_model=chat.model[:MAX_MODEL_CHARS],
        state=row.state,
        decision=row.decision and brief(row.decision, (served,)),
        served_expert=served,
        served_model=row.served_model,
        failures=row.calls.failures,
        engine=row.engine,
        status=row.status,
        error_code=row.error_code,
        finish_reason=row.finish_reason,
        is_stream=chat.is_stream,
        usage=usage,
        cost_usd=cost_of(row.strategy, usage, asked, context.is_batch),
        ttft_ms=row.ttft_ms,
        latency_ms=row.elapsed_ms(),
        overhead_ms=row.overhead_ms,
        session_id=context.session_id,
        key_id=context.caller.key_id,
        is_probe=context.is_probe,
        turns=chat.facts.turns,
        in_tool_loop=chat.facts.in_tool_loop,
        prompt_chars=chat.facts.prompt_chars,
        text=chat.text,
        inputs=row.inputs,
        strategy=row.strategy,
        shadow=None if row.shadow is None else row.shadow(),
        embedding=row.embedding,
    )


def cost_of(trace: StrategyTrace | None, usage: Usage, served: ExpertConfig | None, is_batch: bool) -> float:
    """USD of all calls: those of a strategy, and that of the expert that served without one."""
    several = 0.0 if trace is None else trace.cost_usd
    return several if trace is not None and trace.is_settled else several + cost_usd(usage, served, is_batch)


def cost_usd(usage: Usage, expert: ExpertConfig | None, is_batch: bool = False) -> float:
    """Price of one answer."""
    return 0.0 if expert is None else cost(usage, expert.rates(is_batch))


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
