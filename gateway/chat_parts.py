"""Protocols of what a chat is answered with: `gateway/parts.py` and `gateway/app.py` know who keeps them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fleet.backend import ChunkStream
from gateway.answer_reader import JsonAnswer
from gateway.chat_request import ChatRequest
from gateway.exchange import Asked, Decided, Outcome, Sources
from gateway.keys.grants import Caller
from router.strategies.types import Chosen
from router.types import RoutingDecision, StrategyTrace

EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A stream whose first piece is here. Close `chunks` in any case.

    Args:
        is_native: the expert got the client's own request and answers on its wire.
        hides_usage: the gateway asked for the usage that the stream may report; its client did not.
        queue_ms: how long the request waited for a place at its expert; None where that has no limit.
    """

    expert: str
    content_type: str
    first: bytes
    chunks: ChunkStream
    is_native: bool = False
    hides_usage: bool = False
    queue_ms: float | None = None


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A complete answer with its usage and finish reason."""

    expert: str
    content_type: str
    body: bytes
    facts: JsonAnswer
    is_native: bool = False
    queue_ms: float | None = None


class Decider(Protocol):
    """Decides about requests: `gateway.deciding.Decider`."""

    def session_id(self, session: str, tenant: str) -> str:
        """A conversation's name in the log."""
        ...

    async def decide(
        self,
        request: ChatRequest,
        decision_id: str,
        session_id: str | None = None,
        caller: Caller = ...,
        session: str | None = None,
    ) -> Decided: ...

    def begun(self, asked: Asked, decided: Decided, expert: str) -> None:
        """An expert answers."""
        ...

    def ended(self, asked: Asked, outcome: Outcome, text: str | None) -> None:
        """A chat has ended, however that was."""
        ...


class Experts(Protocol):
    """Calls the decided expert, then others: `gateway.expert_call.ExpertCall`."""

    def expect(self, expert: str) -> None: ...

    def expect_no_more(self, expert: str) -> None: ...

    async def answer(
        self, asked: Asked, chat: ChatRequest, decision: RoutingDecision, known: str | None = None
    ) -> StreamedAnswer | WholeAnswer: ...

    def ended(self, expert: str, error: BaseException | None = None) -> None:
        """A stream has ended."""
        ...


class Several(Protocol):
    """Experts that a strategy asks for one answer: `gateway.strategy_run.StrategyRun`."""

    async def answer(self, on_wait: Callable[[], Awaitable[None]]) -> StreamedAnswer | WholeAnswer | None:
        """The answer that it settles on; None where nobody gave one. `on_wait` begins the client's stream."""
        ...

    def trace(self) -> StrategyTrace: ...


AskSeveral = Callable[[Asked, ChatRequest, RoutingDecision, Chosen], Several]
"""Begins a strategy."""


class Enricher(Protocol):
    """Adds passages of a vector store to a prompt."""

    async def enrich(self, asked: Asked, decision: RoutingDecision) -> tuple[ChatRequest, Sources | None]:
        """The request as its expert gets it, and what was added; None where nothing is attached to its category."""
        ...


class Sampler(Protocol):
    """Takes a sample of answers for a judge."""

    def samples(self) -> bool:
        """Returns True where the next answer is to be kept until its end."""
        ...

    def offer(self, asked: Asked, outcome: Outcome, answer: str | None) -> None:
        """Takes a sampled chat that has ended, with its answer's text."""
        ...
