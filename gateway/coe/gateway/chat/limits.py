"""The caps of a key on one chat. The most that it can cost is reserved before an expert is asked, and settled by what
it did cost when it has ended.

Money is in billionths of a dollar, rounded up. A text has at most as many tokens as bytes, because the byte is the
smallest token there is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from coe.base.json_text import to_json
from coe.decision_log.decision_record import StrategyTrace, TerminalState
from coe.gateway.chat.log import rates
from coe.gateway.chat_request import ChatRequest
from coe.gateway.exchange import ChatRow, RequestContext
from coe.gateway.keys.counters import NOTHING, Cost, nano_usd
from coe.gateway.keys.grants import Caller
from coe.gateway.keys.limits import Limits, Reservation
from coe.router.config.expert import ExpertConfig
from coe.router.prices.cost import LASTING, MEDIA, Price, cost
from coe.router.prices.usage import Usage
from coe.router.strategies.agree import Chosen
from coe.router.types import RoutingDecision

MESSAGE_TOKENS = 16
"""Upper bound of what a chat template puts around one message (ours)."""

TOOL_TOKENS = 1024
"""Upper bound of what a template or a provider adds to the caller's own words on tools and formats (ours)."""

LONGEST = ("max_tokens", "max_completion_tokens", "min_tokens")
NO_PROMPT = frozenset({"messages", "metadata", "model", "stop", "stream_options", "user"})
PLAIN = frozenset({"role", "content"})
WORDS = frozenset({"text", "refusal", "thinking"})
"""Parts of messages that say all that a model reads."""


class ChatLimits:
    """Counts for callers with caps.

    Args:
        experts: entries at the prices of what serves.
    """

    def __init__(self, limits: Limits, experts: Mapping[str, ExpertConfig]) -> None:
        self._limits, self._experts = limits, experts

    def bound(self, chat: ChatRequest, caller: Caller) -> ChatRequest:
        """The request with a longest answer, where a cap counts it."""
        return bounded(chat, caller.answer_tokens) if caller.has_costs else chat

    async def reserve(
        self, context: RequestContext, chat: ChatRequest, decision: RoutingDecision, chosen: Chosen | None = None
    ) -> ChatReservation:
        """Reserves what the dearest expert that may be tried could cost. Raises ApiError 429, 503.

        A failover stays in the decision's ranking, so no other expert can answer.

        Args:
            chosen: a strategy, which may ask further experts.
        """
        caller = context.caller
        prices = Prices(self._experts, chat, context.is_batch)
        held = NOTHING
        if caller.has_costs:
            held = prices.most(*decision.ranking)
            for name in () if chosen is None else chosen.asked:
                held = held.plus(prices.most(name))
        return ChatReservation(await self._limits.reserve(caller, held), prices)


@dataclass(frozen=True)
class Prices:
    """The cost of calls for one chat.

    Args:
        experts: as those of `ChatLimits`.
    """

    experts: Mapping[str, ExpertConfig]
    chat: ChatRequest
    is_batch: bool = False

    def most(self, *names: str) -> Cost:
        """The most that one of these can cost."""
        return most(self.chat, [self.experts[name] for name in names], self.is_batch)

    def spent(self, expert: str, usage: Usage) -> Cost:
        return spent(usage, rates(self.experts[expert], self.is_batch))

    def of_calls(self, trace: StrategyTrace) -> Cost:
        """The cost of a strategy's calls; of one that was cancelled or not counted the most that it can have been."""
        total = NOTHING
        for call in trace.calls:
            is_known = not call.usage.is_estimated
            total = total.plus(self.spent(call.expert, call.usage) if is_known else self.most(call.expert))
        return total


@dataclass(frozen=True)
class ChatReservation:
    """The reservation of one chat."""

    hold: Reservation
    prices: Prices

    @property
    def headers(self) -> Mapping[str, str]:
        return self.hold.headers

    def settle(self, row: ChatRow) -> None:
        """Settles by the experts' counts; nothing was spent where nothing was generated."""
        trace = row.calls.strategy
        several = NOTHING if trace is None else self.prices.of_calls(trace)
        single = NOTHING if trace is not None and trace.is_settled else self._spent(row)
        self.hold.settle(None if single is None else several.plus(single))

    def _spent(self, row: ChatRow) -> Cost | None:
        """None where an expert was at work and its count did not come: a client that leaves in time would pay for
        nothing."""
        served, usage = row.answered_by, row.answer.usage
        if served is None:
            return NOTHING if row.calls.at_work is None else None
        if row.ending.state is TerminalState.UPSTREAM_ERROR and usage.completion_tokens == 0:
            return NOTHING
        return None if usage.is_estimated else self.prices.spent(served, usage)


def bounded(chat: ChatRequest, answer_tokens: int) -> ChatRequest:
    """The request with a longest answer, where it names none: without one its cost has no bound."""
    if chat.facts.max_output_tokens:
        return chat
    facts = replace(chat.facts, max_output_tokens=answer_tokens)
    native = chat.native
    if native is not None:
        native = replace(native, body={**native.body, native.limit: answer_tokens})
    return chat._replace(body={**chat.body, "max_tokens": answer_tokens}, facts=facts, native=native)


def most(chat: ChatRequest, candidates: Iterable[ExpertConfig], is_batch: bool = False) -> Cost:
    """The most that a request with a longest answer costs, whichever of the candidates answers."""
    prompt = prompt_bound(chat.body)
    prompts, choices = (1, 1) if chat.native is None else (chat.native.prompts, chat.native.choices)
    answer = max(count_of(chat.body, name) for name in LONGEST) * max(choices_of(chat.body), choices)
    # An image, or what no chat request says, has no bound in the request; the context is the only one there is.
    is_unbounded = chat.facts.needs_api is not None or any(map(has_more_than_words, chat.messages))
    without = frozenset[str]() if is_unbounded or chat.facts.has_media else MEDIA
    if not asks_lasting_cache([chat.body, {} if chat.native is None else chat.native.body]):
        without |= LASTING
    tokens = nano = 0
    for expert in candidates:
        held = expert.context_tokens * prompts if is_unbounded else prompt
        usd = price(held, answer, rates(expert, is_batch), without)
        tokens, nano = max(tokens, held + answer), max(nano, usd)
    return Cost(tokens, nano)


def spent(usage: Usage, rates: Price) -> Cost:
    """The cost of an answer by the expert's own count."""
    return Cost(usage.prompt_tokens + usage.completion_tokens, nano_usd(cost(usage, rates) * 1e6))


def price(prompt_tokens: int, answer_tokens: int, rates: Price, without: Collection[str] = MEDIA | LASTING) -> int:
    """The most that so many tokens cost, in billionths of a dollar.

    Args:
        without: kinds of tokens that none of them can be.
    """
    return nano_usd(rates.most(prompt_tokens, answer_tokens, without) * 1e6)


def asks_lasting_cache(values: object) -> bool:
    """Returns True where a part of a body asks for a cache of longer than the usual five minutes."""
    left = [values]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left += value
        elif isinstance(value, Mapping):
            kept = value.get("cache_control")
            if isinstance(kept, Mapping) and kept.get("ttl", "5m") != "5m":
                return True
            left += value.values()
    return False


def prompt_bound(body: Mapping[str, object]) -> int:
    """Tokens of a prompt, at most."""
    messages = body["messages"]
    assert isinstance(messages, list)  # gateway/chat_request.py has checked it
    others = [value for name, value in body.items() if name not in NO_PROMPT and isinstance(value, str | list | dict)]
    described = sum(len(to_json(value)) for value in others) + TOOL_TOKENS * bool(others)
    return described + sum(message_bound(message) for message in messages)


def message_bound(message: Mapping[str, object]) -> int:
    content = message.get("content")
    if isinstance(content, str) and message.keys() <= PLAIN:
        return len(content.encode("utf-8", "replace")) + MESSAGE_TOKENS
    return len(to_json(message)) + MESSAGE_TOKENS


def has_more_than_words(message: Mapping[str, object]) -> bool:
    """Returns True for images, recordings, films and files, which are sent by name."""
    content = message.get("content")
    is_more = isinstance(content, list) and any(part["type"] not in WORDS for part in content)
    return is_more or "audio" in message


def choices_of(body: Mapping[str, object]) -> int:
    """Answers that are written for one request."""
    return max(1, count_of(body, "n"), count_of(body, "best_of"))


def count_of(body: Mapping[str, object], name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else 0
