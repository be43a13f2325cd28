"""Answers that a team got before, for exact repeats of a request, which are not routed.

An answer is found again by the same team for the same conversation, settings, policy, router and experts, for as long
as `gateway.answer_cache_s` says, until somebody rates it badly. Errors, cut answers and whatever is more than text are
not kept. While Redis is away, nothing is found.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from typing import TYPE_CHECKING, NamedTuple, cast

from coe.base.json_text import to_json
from coe.base.redis_names import CACHED_ANSWERS, CACHED_FROM
from coe.decision_log.redis_client import REDIS_ERRORS, connect
from coe.gateway.keys.grants import Caller
from coe.router.capabilities import named_decision
from coe.router.config.composition import CoeConfig
from coe.router.types import DecisionReason, Record, RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from coe.decision_log.redis_client import RedisClient
    from coe.gateway.chat_request import ChatRequest

TIMEOUT_S, PAUSE_S = 0.25, 1.0
"""A request waits so long for Redis, and after a failure nobody does for a while."""

MAX_CHARS = 20_000
"""Of a prompt and of an answer."""

NEGATIVE = 0.5
"""Feedback below it forgets the answer."""

NOT_COUNTED = frozenset({"model", "stream", "stream_options", "user", "metadata", "store", "service_tier"})
"""Fields of a request that change nothing about its answer; the policy is counted in place of `model`."""

logger = logging.getLogger(__name__)


class KeptAnswer(Record):
    """An answer in the cache: its text, and what was decided for the request that it was given to."""

    text: str
    expert: str
    category: str

    def decision(self, version: str, policy: str) -> RoutingDecision:
        """The decision for a request that it answers."""
        own = {"category": self.category, "likely_category": self.category, "policy": policy}
        return named_decision((self.expert,), version).model_copy(update={**own, "reason": DecisionReason.CACHED})


class Slot(NamedTuple):
    """The place of a request's answer in the cache, and the answer that was found there."""

    key: str
    answer: KeptAnswer | None = None


class AnswerCache:
    """Finds and keeps answers, for `max_age_s` seconds; `experts` is all that is configured of those who give them."""

    def __init__(self, max_age_s: int, redis_url: str, experts: str) -> None:
        self._max_age_s = max_age_s
        self._client: RedisClient = connect(redis_url, timeout_s=TIMEOUT_S)
        self._secret = hashlib.sha256(f"{redis_url}\0{experts}".encode()).digest()
        self._sending: set[asyncio.Task[None]] = set()
        self._paused_until_s = 0.0

    async def look_up(
        self, chat: ChatRequest, caller: Caller, router: str, policy: str, decision_id: str
    ) -> Slot | None:
        """The slot of a request; None where its answer may not be kept, or Redis is away."""
        facts, client = chat.facts, self._ready()
        is_more = facts.has_media or facts.has_tools or facts.wants_logprobs or chat.native is not None
        if client is None or is_more or facts.prompt_chars > MAX_CHARS or chat.body.get("n") not in (None, 1):
            return None
        counted = {name: value for name, value in chat.body.items() if name not in NOT_COUNTED}
        messages = [
            {k: v.strip() if isinstance(v, str) else v for k, v in message.items()} for message in chat.messages
        ]
        allowed = sorted(caller.experts or ())
        whole = to_json([caller.tenant, allowed, router, policy, sorted((counted | {"messages": messages}).items())])
        key = hashlib.blake2b(whole, digest_size=16, key=self._secret).hexdigest()
        try:
            found = cast("bytes | None", await client.get(CACHED_ANSWERS + key))
        except REDIS_ERRORS as error:
            self._pause(error)
            return None
        if found is not None:
            self._send(client.set(CACHED_FROM + decision_id, key, ex=self._max_age_s))
        return Slot(key, None if found is None else KeptAnswer.model_validate_json(found))

    def offer(self, slot: Slot, decision_id: str, decision: RoutingDecision, text: str) -> None:
        """Keeps a whole answer of the expert that was decided, unless it comes from here."""
        client = self._ready()
        if client is None or not text or len(text) >= MAX_CHARS or decision.reason is DecisionReason.CACHED:
            return
        pipeline = client.pipeline(transaction=False)
        kept = KeptAnswer(text=text, expert=decision.expert, category=decision.category)
        pipeline.set(CACHED_ANSWERS + slot.key, kept.model_dump_json(), ex=self._max_age_s)
        pipeline.set(CACHED_FROM + decision_id, slot.key, ex=self._max_age_s)
        self._send(pipeline.execute())

    def rated(self, decision_id: str, value: float) -> None:
        """Forgets the answer that a decision led to or was answered with, where feedback on it is bad."""
        client = self._ready()
        if client is not None and value < NEGATIVE:
            self._send(forget(client, decision_id))

    async def aclose(self) -> None:
        await asyncio.gather(*self._sending)
        await self._client.aclose()

    def _ready(self) -> RedisClient | None:
        return self._client if time.monotonic() >= self._paused_until_s else None

    def _send(self, command: Awaitable[object]) -> None:
        """Runs a command behind the request."""
        task = asyncio.create_task(self._sent(command), name="answer-cache")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _sent(self, command: Awaitable[object]) -> None:
        try:
            await command
        except REDIS_ERRORS as error:
            self._pause(error)

    def _pause(self, error: Exception) -> None:
        self._paused_until_s = time.monotonic() + PAUSE_S
        logger.warning("answers are neither cached nor found: Redis cannot be asked (%s)", type(error).__name__)


async def forget(client: RedisClient, decision_id: str) -> None:
    key = cast("bytes | None", await client.get(CACHED_FROM + decision_id))
    if key is not None:
        await client.delete(CACHED_ANSWERS + key.decode())


def cache_of(config: CoeConfig, redis_url: str | None) -> AnswerCache | None:
    """The cache of experts.yaml; None where there is none, or no Redis."""
    max_age_s, experts = config.gateway.answer_cache_s, config.model_dump_json(include={"experts"})
    return None if max_age_s is None or redis_url is None else AnswerCache(max_age_s, redis_url, experts)
