"""Caps of a key around one chat: its most is reserved before an expert is asked, and settled when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.exchange import Asked, Outcome
from gateway.keys.counters import NOTHING, Cost
from gateway.keys.grants import Caller
from gateway.keys.limits import Hold, Limits
from gateway.keys.price import bounded, most, spent
from gateway.wire import ChatRequest
from router.config import CoeConfig, ExpertConfig
from router.types import RoutingDecision, StrategyTrace, TerminalState

PREAMBLE_CHARS = 1000
"""Around the passages of a vector store, more than there is."""


class ChatLimits:
    """Works for callers with caps only; for others nothing is counted.

    Args:
        experts: entries at the prices of what serves.
    """

    def __init__(self, limits: Limits, config: CoeConfig, experts: Mapping[str, ExpertConfig]) -> None:
        self._limits, self._experts = limits, experts
        attached = config.retrieval.attach.values() if config.retrieval else ()
        self._added_chars = max((each.max_chars + PREAMBLE_CHARS for each in attached), default=0)

    def bound(self, chat: ChatRequest, caller: Caller) -> ChatRequest:
        """The request with a longest answer, where a cap counts it."""
        return bounded(chat, caller.answer_tokens) if caller.has_costs else chat

    async def reserve(self, asked: Asked, decision: RoutingDecision, several: Sequence[str] = ()) -> Hold | None:
        """Reserves what the dearest expert that may be tried could cost; None without caps. Raises ApiError 429, 503.

        A failover stays in the decision's ranking, so no other expert can answer.

        Args:
            several: experts that a strategy may ask before.
        """
        caller = asked.caller
        if not caller.caps:
            return None
        candidates = (self._experts[name] for name in decision.ranking)
        cost = most(asked.chat, candidates, self._added_chars) if caller.has_costs else NOTHING
        for name in several if caller.has_costs else ():
            cost = cost.plus(self._most(asked, name))
        return await self._limits.reserve(caller, cost)

    def _most(self, asked: Asked, expert: str) -> Cost:
        return most(asked.chat, (self._experts[expert],), self._added_chars)

    def spent_on(self, asked: Asked, trace: StrategyTrace) -> Cost:
        """The cost of a strategy's calls; of one that was cancelled or not counted the most that it can have been."""
        cost = NOTHING
        for call in trace.calls if asked.caller.has_costs else ():
            is_known = not call.usage.is_estimated
            cost = cost.plus(
                spent(call.usage, self._experts[call.expert]) if is_known else self._most(asked, call.expert)
            )
        return cost

    def settle(self, outcome: Outcome) -> None:
        """Settles by the expert's count; nothing was spent where nothing was generated."""
        if outcome.hold is None:
            return
        several, trace = outcome.spent or NOTHING, outcome.strategy
        single = NOTHING if trace is not None and trace.is_settled else self._spent(outcome)
        outcome.hold.settle(None if single is None else several.plus(single))

    def _spent(self, outcome: Outcome) -> Cost | None:
        """None where an answer, or a part of it, came without the expert's count."""
        served, usage = outcome.answered_by, outcome.usage
        is_empty = outcome.state is not TerminalState.ANSWERED and usage.completion_tokens == 0
        if served is None or is_empty:
            return NOTHING
        return None if usage.is_estimated else spent(usage, self._experts[served])
