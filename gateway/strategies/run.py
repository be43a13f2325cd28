"""Asks experts as a strategy says, until an answer is settled, and notes every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from base.errors import RouterError
from fleet.wires.echo import wants_usage
from gateway.answer_reader import answer_text
from gateway.asgi import read_off_loop
from gateway.exchange import Asked, cost_usd
from gateway.expert_call import ExpertCall, StreamedAnswer, WholeAnswer
from gateway.http_errors import api_error
from gateway.strategies.told import streamed, total, with_usage
from gateway.wire import ChatRequest
from router.config import ExpertConfig
from router.strategies.types import Chosen, Reply, Settled, Strategy
from router.types import AskedExpert, CallState, RoutingDecision, StrategyTrace, Usage

WAITING_S = 10.0
"""A proxy cuts a stream that is silent for 30 to 60 s."""

NEW_ANSWER = "\0"
"""Key of an answer that nobody has given yet."""


@dataclass(slots=True)
class Call:
    """One expert's call. It counts as cancelled until it has ended."""

    expert: str
    prompt_tokens: int
    state: CallState = CallState.CANCELLED
    answer: WholeAnswer | None = None
    key: str | None = None
    error_code: str | None = None
    latency_ms: float | None = None

    @property
    def usage(self) -> Usage:
        """The expert's count; for a call that was cancelled its prompt, estimated, and for one that failed nothing."""
        if self.answer is not None:
            return self.answer.facts.usage
        is_cancelled = self.state is CallState.CANCELLED
        return Usage(prompt_tokens=self.prompt_tokens if is_cancelled else 0, is_estimated=is_cancelled)

    @property
    def reply(self) -> Reply:
        return Reply(self.key, is_failure=self.answer is None)


@dataclass
class StrategyRun:
    """One request on its way through several experts. `trace` tells at any time what was asked."""

    experts: ExpertCall
    entries: Mapping[str, ExpertConfig]
    asked: Asked
    chat: ChatRequest
    decision: RoutingDecision
    chosen: Chosen
    calls: dict[int, Call] = field(default_factory=dict)
    settled: Settled | None = None

    async def answer(self, on_wait: Callable[[], Awaitable[None]]) -> StreamedAnswer | WholeAnswer | None:
        """The answer that is served, with the usage of all calls, as its client asked for it; None where nobody gave
        one.

        Args:
            on_wait: called again and again while the client waits for a stream.
        """
        asking = asyncio.create_task(self._settled_answer(), name="strategy")
        try:
            while not (await asyncio.wait({asking}, timeout=WAITING_S))[0]:
                if self.chat.is_stream:
                    await on_wait()
            answer = asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        return streamed(answer, wants_usage(self.chat.body)) if answer and self.chat.is_stream else answer

    async def _settled_answer(self) -> WholeAnswer | None:
        """Asks until an answer is settled. What is not needed any more is cancelled at its expert."""
        running: dict[asyncio.Task[None], int] = {}
        strategy = self.chosen.strategy
        replies = {e: Reply(is_failure=True) for e in strategy.experts if not self._can_serve(e)}
        try:
            while self.settled is None:
                step = strategy.step(replies)
                if isinstance(step, Settled):
                    self.settled = step
                    break
                for expert in [each for each in step.experts if each not in running.values()]:
                    running[asyncio.create_task(self._call(expert), name="strategy-call")] = expert
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    expert = running.pop(task)
                    task.result()
                    replies[expert] = self.calls[expert].reply
                self.settled = foregone(strategy, replies, running.values())
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        served = None if self.settled.expert is None else self.calls[self.settled.expert].answer
        if served is None:
            return None
        usage = total(call.usage for call in self.calls.values())
        body = await read_off_loop(lambda raw: with_usage(raw, usage), served.body)
        return replace(served, body=body, facts=replace(served.facts, usage=usage))

    def _can_serve(self, expert: int) -> bool:
        return self.chosen.experts[expert] in self.decision.eligible

    async def _call(self, expert: int) -> None:
        """Asks one expert for a whole answer. A failure is no answer."""
        name, begun = self.chosen.experts[expert], time.perf_counter()
        call = self.calls[expert] = Call(name, self.chat.facts.prompt_tokens)
        body = {field: value for field, value in self.chat.body.items() if field not in ("stream", "stream_options")}
        try:
            answer = await self.experts.whole(self.asked, replace(self.chat, body=body, is_stream=False), name)
            if answer.facts.error_code is not None:
                call.state, call.error_code = CallState.FAILED, answer.facts.error_code
            else:
                text = await read_off_loop(answer_text, answer.body)
                call.state, call.answer = CallState.ANSWERED, answer
                is_cut = answer.facts.finish_reason == "length"
                call.key = None if text is None or is_cut else self.chosen.kind(text)
        except RouterError as error:
            call.state, call.error_code = CallState.FAILED, api_error(error, name).code
        finally:
            call.latency_ms = (time.perf_counter() - begun) * 1e3

    def trace(self) -> StrategyTrace:
        """The part of the row and the receipt. Answers are numbered; their text is nowhere."""
        keys = list(dict.fromkeys(call.key for call in self.calls.values() if call.key is not None))
        calls = tuple(
            AskedExpert(
                expert=call.expert,
                state=call.state,
                answer=None if call.key is None else keys.index(call.key),
                usage=call.usage,
                cost_usd=cost_usd(call.usage, self.entries.get(call.expert)),
                latency_ms=call.latency_ms or 0.0,
                error_code=call.error_code,
            )
            for call in self.calls.values()
        )
        settled = self.settled or Settled(None)
        return StrategyTrace(
            name=self.chosen.name,
            is_settled=settled.expert is not None,
            confidence=settled.confidence,
            agreed=settled.agreed,
            calls=calls,
        )


def foregone(strategy: Strategy, replies: Mapping[int, Reply], running: Collection[int]) -> Settled | None:
    """The end that the calls still running cannot change, whether they fail, all give one of the answers so far, or
    all a new one; None where they can."""
    answers = {reply.key for reply in replies.values() if reply.key is not None}
    if not running or not answers:
        return None
    silent = {**replies, **dict.fromkeys(running, Reply(is_failure=True))}
    found = strategy.step(silent)
    if not isinstance(found, Settled) or found.expert is None:
        return None
    served = silent[found.expert].key
    for answer in (*answers, NEW_ANSWER):
        supposed = {**replies, **dict.fromkeys(running, Reply(answer))}
        other = strategy.step(supposed)
        if not isinstance(other, Settled) or other.expert is None or supposed[other.expert].key != served:
            return None
    return found
