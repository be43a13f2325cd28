"""Whether several experts are asked: the two probes of `agree`, and its arbiter where they differ. Notes every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from coe.base.errors import RouterError
from coe.base.json_text import to_json
from coe.decision_log.decision_record import AskedExpert, CallState, StrategyTrace
from coe.fleet.calls.backend import reply_json
from coe.gateway.chat.log import cost_usd
from coe.gateway.chat_request import ChatRequest, text_of
from coe.gateway.exchange import RequestContext
from coe.gateway.experts.answer import StreamedAnswer, WholeAnswer
from coe.gateway.experts.answer_reader import answer_calls, answer_text
from coe.gateway.experts.call import ExpertCall, streamed
from coe.gateway.http.asgi import read_off_loop
from coe.gateway.http_errors import api_error
from coe.router.answers import KeyOf, answer_kind, calls_of
from coe.router.answers.call import NO_CALL
from coe.router.config.expert import ClientApi, ExpertConfig
from coe.router.pipeline import Router
from coe.router.prices.usage import Usage, chat_usage
from coe.router.section import PluginConfig
from coe.router.strategies.agree import Agree, Chosen, Reply, Settled, StrategyName
from coe.router.types import DecisionReason, RoutingDecision

WAITING_S = 10.0
"""A proxy cuts a stream that is silent for 30 to 60 s."""

NOT_SETTLED = Settled(None)
COMPARER = ThreadPoolExecutor(max_workers=8, thread_name_prefix="coe-compare")
"""For kinds of answers that run code; of one request one answer after the other."""


BY_PLAN = frozenset({DecisionReason.MAP, DecisionReason.QUERY, DecisionReason.UNCERTAIN, DecisionReason.NEXT_BEST})
"""Reasons of decisions that a strategy may widen. Pinned, kept and explored experts stay alone, but in a loop of tools
every step is decided: all experts read what the step before called."""

MORE_THAN_TEXT = ("functions", "logprobs", "top_logprobs", "audio", "modalities", "prediction")
"""Fields with which an answer is more than text and calls of tools, or belongs to the expert that wrote it."""


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
    context: RequestContext
    chat: ChatRequest
    decision: RoutingDecision
    chosen: Chosen
    calls: dict[int, Call] = field(default_factory=dict)
    settled: Settled = NOT_SETTLED
    _comparing: asyncio.Lock = field(default_factory=asyncio.Lock)

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
        return streamed(answer, self.chat) if answer and self.chat.is_stream else answer

    async def _settled_answer(self) -> WholeAnswer | None:
        """Asks the probes at once, then the arbiter if they differ."""
        strategy = self.chosen.strategy
        await self._ask_all(strategy.probes)
        if strategy.needs_arbiter(self._replies):
            await self._ask_all((strategy.arbiter,))
        self.settled = strategy.settled(self._replies)
        served = None if self.settled.expert is None else self.calls[self.settled.expert].answer
        if served is None:
            return None
        usage = Usage.total([call.usage for call in self.calls.values()])
        body = await read_off_loop(lambda raw: with_usage(raw, usage), served.body)
        return replace(served, body=body, facts=served.facts._replace(usage=usage))

    @property
    def _replies(self) -> dict[int, Reply]:
        return {expert: call.reply for expert, call in self.calls.items()}

    async def _ask_all(self, experts: Iterable[int]) -> None:
        """Asks those that can take the request, all at once. If one of them raises, the others are cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for expert in experts:
                if self.chosen.experts[expert] in self.decision.eligible:
                    tasks.create_task(self._call(expert), name="strategy-call")

    async def _call(self, expert: int) -> None:
        """Asks one expert for a whole answer. A failure is not an answer."""
        call = self.calls[expert] = Call(self.chosen.experts[expert], self.chat.facts.prompt_tokens)
        body = {field: value for field, value in self.chat.body.items() if field not in ("stream", "stream_options")}
        await self._ask_into(call, self.chat._replace(body=body, is_stream=False))
        if call.answer is not None and call.answer.facts.finish_reason != "length":
            call.key = await self._key(call.answer.body)

    async def _ask_into(self, call: Call, chat: ChatRequest) -> None:
        """Notes an expert's answer and what became of the call."""
        begun = time.perf_counter()
        try:
            answer = await self.experts.whole(self.context, chat, call.expert)
            if answer.facts.error_code is not None:
                call.state, call.error_code = CallState.FAILED, answer.facts.error_code
            else:
                call.state, call.answer = CallState.ANSWERED, answer
        except RouterError as error:
            call.state, call.error_code = CallState.FAILED, api_error(error, call.expert).cause
        finally:
            call.latency_ms = (time.perf_counter() - begun) * 1e3

    async def _key(self, answer: bytes) -> str | None:
        """The key of the calls in an answer; without any that of its text."""
        calls_key, texts_key = self.chosen.calls, self.chosen.texts
        if calls_key is not None and (calls := await read_off_loop(answer_calls, answer)):
            return await read_off_loop(lambda raw: calls_key(raw.decode()), calls.encode())
        text = await read_off_loop(answer_text, answer)
        if text is None or texts_key is None:
            return None
        if not self.chosen.is_slow:
            return texts_key(text)
        async with self._comparing:
            return await asyncio.get_running_loop().run_in_executor(COMPARER, texts_key, text)

    def trace(self) -> StrategyTrace:
        """The part of the row and the receipt. Answers are numbered; their text is nowhere."""
        keys = list(dict.fromkeys(call.key for call in self.calls.values() if call.key is not None))
        calls = tuple(
            AskedExpert(
                expert=call.expert,
                state=call.state,
                answer=None if call.key is None else keys.index(call.key),
                usage=call.usage,
                cost_usd=cost_usd(call.usage, self.entries.get(call.expert), self.context.is_batch),
                latency_ms=call.latency_ms or 0.0,
                error_code=call.error_code,
                propensity=self.decision.propensity,
            )
            for call in self.calls.values()
        )
        is_settled, agreed = self.settled.expert is not None, self.settled.agreed
        return StrategyTrace(name=StrategyName.AGREE, is_settled=is_settled, agreed=agreed, calls=calls)


def with_usage(body: bytes, usage: Usage) -> bytes:
    """A whole answer that reports another usage."""
    return to_json({**reply_json(body), "usage": chat_usage(usage)})


def chosen_strategy(
    strategy: Agree,
    router: Router,
    decision: RoutingDecision,
    chat: ChatRequest,
    declared: Mapping[str, PluginConfig],
) -> Chosen | StrategyTrace | None:
    """A policy's strategy as it asks several experts for a request; None where one serves it all the same. Where the
    request keeps several from being asked, the trace that says why.

    Args:
        declared: the kind of each category's answers.
    """
    is_step = decision.reason is DecisionReason.KEPT and chat.facts.in_tool_loop
    if not (is_step or decision.reason in BY_PLAN):
        return None
    calls = calls_of(chat.body.get("tools")) if chat.facts.has_tools else None
    kind, why, is_slow = answer_kind(chat.facts, decision.category, declared), why_single(chat), False
    texts: KeyOf | None = any_text
    if not isinstance(kind, str):
        texts, is_slow = kind.key_for("\n\n".join(map(text_of, chat.messages))), kind.is_slow
    if calls is None and not why:
        shows_none = "the request shows nothing to compare answers by" if texts is None else ""
        why = kind if isinstance(kind, str) else shows_none
    if why:
        return StrategyTrace(name=StrategyName.AGREE, is_settled=False, declined=why)
    return Chosen(strategy, router.experts, texts, calls, is_slow)


def any_text(text: str) -> str | None:
    """The key of texts where nothing tells them apart: all are answers without a call."""
    return NO_CALL if text else None


def why_single(chat: ChatRequest) -> str:
    """The reason why a request is for one expert alone; empty where there is none."""
    native = chat.native
    if native is not None and (native.api is ClientApi.COMPLETIONS or native.losses):
        return f"only /v1/{native.api} has all that this request says"
    if chat.body.get("n") not in (None, 1):
        return "'n' asks for several answers of one expert"
    field = next((name for name in MORE_THAN_TEXT if chat.body.get(name)), None)
    return "" if field is None else f"with '{field}' the answer is more than text and calls"
