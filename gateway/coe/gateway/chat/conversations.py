"""The expert that each conversation had last, in this process and, where several gateways share one, in Redis.

A request that begins a conversation waits for nothing: what it leaves is sent to Redis beside its answer. One that
continues a conversation asks Redis once, and only where this process did not answer before, or has forgotten it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from coe.base.redis_names import CONVERSATIONS
from coe.decision_log.privacy import session_of
from coe.decision_log.redis_client import REDIS_ERRORS, connect
from coe.fleet.processes.tasks import stop_task
from coe.router.prices.cost import LASTING
from coe.router.prices.usage import READ, WRITTEN, Usage
from coe.router.types import QueryFacts

if TYPE_CHECKING:
    from coe.decision_log.redis_client import RedisClient

CACHE_S, LONG_CACHE_S = 300, 3600
"""How long a provider's prefix cache keeps a prompt that nobody asks for: five minutes at Anthropic, five to ten at
OpenAI; an hour where the answer's usage says that it was written for an hour."""

KEPT_S = 3600
"""After an hour without a request an engine's prefix cache has other conversations (ours)."""

MAX_KEPT = 4096
"""In this process, 400 bytes each. Of others Redis is asked."""

TIMEOUT_S = 0.25
PAUSE_S = 1.0
"""For so long after a failure nobody waits for Redis."""

logger = logging.getLogger(__name__)


class Last(NamedTuple):
    """A conversation's expert after so many answers, its moves within loops, and why it came to that expert. Whose
    prefix cache has so many tokens until then (Unix seconds)."""

    answers: int
    expert: str
    moves: int = 0
    reason: str = "-"
    tokens: int = 0
    until: float = 0.0

    def facts(self, facts: QueryFacts) -> QueryFacts:
        """Those of a request that continues the conversation."""
        cached = min(self.tokens, facts.prompt_tokens) if time.time() < self.until else 0
        return replace(facts, last_expert=self.expert, cached_tokens=cached, moves=self.moves, last_reason=self.reason)

    def heard(self, usage: Usage) -> Last:
        """With what the usage of its answer says of the cache, where it says anything."""
        tokens, lasts_s = usage.of((*READ, *WRITTEN)), LONG_CACHE_S if usage.of(LASTING) else CACHE_S
        return self._replace(tokens=tokens, until=time.time() + lasts_s) if tokens else self

    def line(self) -> str:
        return f"{self.answers} {self.moves} {self.reason} {self.tokens} {self.until:.0f} {self.expert}"

    @classmethod
    def read(cls, line: bytes) -> Last | None:
        """None for what is no such line."""
        try:
            answers, moves, reason, tokens, until, expert = line.decode().split(" ", 5)
            return cls(int(answers), expert, int(moves), reason, int(tokens), float(until))
        except ValueError:
            return None


class Conversations:
    """Remembers the expert of each conversation. One for each process.

    While Redis is away, a gateway knows the last `MAX_KEPT` that it served itself; others are routed afresh.

    Args:
        redis_url: of the Redis of several gateways; None: this one remembers its own alone.
    """

    def __init__(self, redis_url: str | None = None) -> None:
        self._client: RedisClient | None = None if redis_url is None else connect(redis_url, timeout_s=TIMEOUT_S)
        # Shared by all gateways of one Redis, unlike the keys of their data folders.
        self._key = hashlib.sha256((redis_url or "").encode()).digest()
        self._own = OrderedDict[str, Last]()  # the oldest first; a dict looks for it among those that have gone
        self._unsent: dict[str, Last] = {}
        self._sender: asyncio.Task[None] | None = None
        self._paused_until_s = 0.0
        self._is_away = False

    def name_of(self, conversation: str, tenant: str) -> str:
        """A conversation's name, which does not reveal what was said; no tenant has one of another."""
        named = session_of(tenant, conversation).encode("utf-8", "replace")
        return hashlib.blake2b(named, digest_size=16, key=self._key).hexdigest()

    async def last(self, conversation: str, answers: int) -> Last | None:
        """The expert that answered last in a conversation with so many answers, with what is known of it; None where
        nobody remembers."""
        own = self._own.get(conversation)
        if own is None or own.answers < answers:
            shared = await self._ask(conversation)
            own = max((each for each in (own, shared) if each is not None), key=lambda each: each.answers, default=None)
        return own

    def hear(self, conversation: str, usage: Usage) -> None:
        """Takes what the usage of the last answer says of the cache."""
        if usage.kinds and (last := self._own.get(conversation)) is not None:
            self.note(conversation, last.heard(usage))

    def note(self, conversation: str, last: Last) -> None:
        """Remembers who answered."""
        self._own.pop(conversation, None)
        self._own[conversation] = last
        if len(self._own) > MAX_KEPT:
            self._own.popitem(last=False)
        if self._client is not None and time.monotonic() >= self._paused_until_s:
            self._unsent[conversation] = last
            if self._sender is None or self._sender.done():
                self._sender = asyncio.create_task(self._send_soon(self._client), name="conversations")

    async def aclose(self) -> None:
        await stop_task(self._sender)
        if self._client is not None:
            await self._send(self._client)
            await self._client.aclose()

    async def _ask(self, conversation: str) -> Last | None:
        if self._client is None or time.monotonic() < self._paused_until_s:
            return None
        try:
            found = await self._client.get(CONVERSATIONS + conversation)
        except REDIS_ERRORS as error:
            self._pause(error)
            return None
        return Last.read(found) if isinstance(found, bytes) else None

    async def _send_soon(self, client: RedisClient) -> None:
        """Begins before the answer ends where an agent's next request may reach another gateway at once. What is
        noted while notes are under way follows them together."""
        while self._unsent:
            await asyncio.sleep(0)
            await self._send(client)

    async def _send(self, client: RedisClient) -> None:
        """Sends what is noted; what Redis does not take is left out."""
        unsent, self._unsent = self._unsent, {}
        if not unsent:
            return
        try:
            pipeline = client.pipeline(transaction=False)
            for name, last in unsent.items():
                pipeline.set(CONVERSATIONS + name, last.line(), ex=KEPT_S)
            await pipeline.execute()
            self._is_away = False
        except REDIS_ERRORS as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        self._paused_until_s = time.monotonic() + PAUSE_S
        if not self._is_away:
            logger.warning(
                "conversations of other gateways are routed afresh: Redis cannot be asked (%s)", type(error).__name__
            )
        self._is_away = True
