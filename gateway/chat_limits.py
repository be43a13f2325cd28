"""Limits of one chat: those of its body, and the caps of its key, whose most is reserved before an expert is asked and
settled when the chat has ended."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.exchange import Asked, Outcome
from gateway.intake import Admission
from gateway.keys.counters import NOTHING, Cost
from gateway.keys.grants import Caller
from gateway.keys.limits import Hold, Limits
from gateway.keys.price import MESSAGE_TOKENS, bounded, most, price, spent
from gateway.wire import ChatRequest
from router.config import CoeConfig
from router.expert_config import ExpertConfig
from router.strategies.types import Chosen, Judging
from router.types import RoutingDecision, StrategyTrace, TerminalState

PREAMBLE_CHARS = 1000
"""Around the passages of a vector store, more than there is."""


class ChatLimits:
    """Counts for callers with caps only. `of_body` bounds every request, `admission` how many run at once.

    Args:
        experts: entries at the prices of what serves.
    """

    def __init__(
        self, admission: Admission, limits: Limits, config: CoeConfig, experts: Mapping[str, ExpertConfig]
    ) -> None:
        self.admission, self._limits, self._experts, self.of_body = admission, limits, experts, config.gateway
        attached = config.retrieval.attach.values() if config.retrieval else ()
        self._added_chars = max((each.max_chars + PREAMBLE_CHARS for each in attached), default=0)

    def bound(self, chat: ChatRequest, caller: Caller) -> ChatRequest:
        """The request with a longest answer, where a cap counts it."""
        return bounded(chat, caller.answer_tokens) if caller.has_costs else chat

    async def reserve(self, asked: Asked, decision: RoutingDecision, chosen: Chosen | None = None) -> Hold | None:
        """Reserves what the dearest expert that may be tried could cost; None without caps. Raises ApiError 429, 503.

        A failover stays in the decision's ranking, so no other expert can answer.

        Args:
            chosen: a strategy, which may ask further experts.
        """
        caller = asked.caller
        if not caller.caps:
            return None
        candidates = (self._experts[name] for name in decision.ranking)
        cost = most(asked.chat, candidates, self._added_chars) if caller.has_costs else NOTHING
        if chosen is not None and caller.has_costs:
            for name in chosen.asked:
                cost = cost.plus(self._most(asked, name))
            if (judging := chosen.kind.judging) is not None:
                n = len(chosen.asked)
                cost = cost.plus(self._most_judging(judging).times(n * (n - 1) // 2))
        return await self._limits.reserve(caller, cost)

    def _most(self, asked: Asked, expert: str) -> Cost:
        return most(asked.chat, (self._experts[expert],), self._added_chars)

    def _most_judging(self, judging: Judging) -> Cost:
        """Of one comparison of two answers."""
        prompt, reply = judging.prompt_bytes + 2 * MESSAGE_TOKENS, judging.reply_tokens
        return Cost(prompt + reply, price(prompt, reply, self._experts[judging.expert]))

    def spent_on(self, asked: Asked, trace: StrategyTrace, judging: Judging | None) -> Cost:
        """The cost of a strategy's calls; of one that was cancelled or not counted the most that it can have been."""
        cost = NOTHING
        for call in trace.calls if asked.caller.has_costs else ():
            if not call.usage.is_estimated:
                cost = cost.plus(spent(call.usage, self._experts[call.expert]))
            elif call.is_judge and judging is not None:
                cost = cost.plus(self._most_judging(judging))
            else:
                cost = cost.plus(self._most(asked, call.expert))
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
