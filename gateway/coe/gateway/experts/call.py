"""Calling experts for one request: the decided one, then others, until one begins to answer."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import partial
from typing import cast

from coe.base.errors import BackendError, BusyError, RouterError
from coe.decision_log.privacy import keyed_hash
from coe.fleet.calls.backend import ELSEWHERE, RETRY_AFTER_S, BackendRequest, BackendResponse, chunks_of, reply_json
from coe.fleet.calls.chat_completions import as_response, completion, frames, wants_usage
from coe.fleet.calls.pool import Call, ExpertPool
from coe.fleet.calls.replicas import Replica
from coe.gateway.chat_request import ChatRequest, Native
from coe.gateway.exchange import Calls, Decided, RequestContext
from coe.gateway.experts.answer import (
    EVENT_STREAM,
    AnswerTime,
    GuardedChunks,
    StreamedAnswer,
    WholeAnswer,
    read_beginning,
)
from coe.gateway.experts.answer_reader import chat_completion
from coe.gateway.http.asgi import off_loop
from coe.gateway.http_errors import OF_ENTRY, OUT_OF_QUOTA, TOO_LONG, UNSENT, ApiError, api_error
from coe.gateway.keys.grants import Caller
from coe.router.config.expert import ClientApi, Engine, ExpertConfig
from coe.router.types import RoutingDecision

RETRY_SHARE = 0.1  # of requests; gRPC's retry throttling uses the same order (A6: tokenRatio 0.1)
RETRY_BURST = 10.0

logger = logging.getLogger(__name__)


class RetryBudget:
    """A limit on the retries that the gateway adds to the experts' load, so that an outage is not made worse.

    A bucket that every request fills a little and every further try empties by one.
    """

    def __init__(self) -> None:
        self._tokens = RETRY_BURST

    def earn(self) -> None:
        """A request arrived."""
        self._tokens = min(RETRY_BURST, self._tokens + RETRY_SHARE)

    def spend(self) -> bool:
        """Takes a further try; False when there is none left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ExpertCall:
    """Calls experts and keeps their breakers informed.

    Only failures before the first content lead to another engine of the expert, where it has several, and then to
    another expert, at most `retries` times, within the budget of further tries that each key has. After a prompt that
    was too long that is one with a larger context. An expert that cannot be reached got nothing, so it counts for
    neither: with it go all that share its engine.

    Args:
        experts: entries of experts.yaml.
        keys: secrets that experts are called with, by expert.
        hash_key: of the names that callers have in an engine's cache.
    """

    def __init__(
        self,
        pool: ExpertPool,
        experts: Mapping[str, ExpertConfig],
        keys: Mapping[str, str],
        hash_key: bytes,
        *,
        retries: int,
    ) -> None:
        self.pool, self._experts, self._keys, self._hash_key = pool, experts, keys, hash_key
        self._retries, self._budgets = retries, defaultdict[str, RetryBudget](RetryBudget)

    async def answer(
        self,
        context: RequestContext,
        chat: ChatRequest,
        decided: Decided,
        calls: Calls,
    ) -> StreamedAnswer | WholeAnswer:
        """The first answer that begins, or that of the cache.

        Args:
            chat: as the expert gets it, which may hold more than what was asked.
            calls: told of each.

        Raises:
            ApiError: none did; the last failure, with its expert.
        """
        decision, known = decided.decision, decided.known
        if known is not None:
            request = BackendRequest(chat.body, is_stream=chat.is_stream, request_id=context.decision_id)
            answer = completion(decision.expert, known, request)
            return await read_beginning(decision.expert, as_response(answer, request))
        budget = self._budgets[context.caller.key_id or ""]
        budget.earn()
        tries = 0  # requests that got to an expert
        expert, failures = decision.expert, calls.failures
        while True:
            try:
                return await self._attempt(context, chat, expert, calls)
            except RouterError as error:
                failure = api_error(error, expert)
            failure.expert, calls.at_work = expert, expert if failure.status == 504 else None
            tries += failure.code not in UNSENT
            following = self._following(decision, failures, failure, budget) if tries <= self._retries else None
            if following is None:
                if failure.status == 429 and failure.cooldown_s is not None:
                    failure.retry_after_s = self._shortest_wait_s(decision.ranking, failure)
                raise failure.after(failures) if failures else failure
            failures[expert] = failure.cause
            expert = following

    async def whole(self, context: RequestContext, chat: ChatRequest, expert: str) -> WholeAnswer:
        """One expert's answer to a request that is not streamed. Raises RouterError; nothing is tried again."""
        if expert in self.pool.asleep:  # since several were decided, of which one is expected
            raise BackendError(f"expert {expert} has just been put to sleep", status=503)
        answer = await self._attempt(context, chat._replace(native=None), expert, Calls())
        assert isinstance(answer, WholeAnswer)
        return answer

    def _shortest_wait_s(self, ranking: Collection[str], failure: ApiError) -> float:
        """Seconds until the first that could serve may be asked, where the last one asked is at its limit."""
        waits_s = dict.fromkeys(self.pool.alive, RETRY_AFTER_S) | self.pool.cooldowns_s()
        return min([failure.retry_after_s or 0.0, *(waits_s[name] for name in ranking if name in waits_s)])

    def _native(self, chat: ChatRequest, expert: str) -> Native | None:
        """The client's own request where that expert speaks its API."""
        native = chat.native
        return native if native is not None and native.api in self._experts[expert].apis else None

    def _asks_usage(self, caller: Caller, chat: ChatRequest, expert: str, native: Native | None) -> bool:
        """Returns True where a stream's usage is needed and its client did not ask for it."""
        if native is None and chat.native is not None:
            return True  # the client's answer has it
        body = chat.body if native is None else native.body
        options = body.get("stream_options") or {}
        if (native is not None and native.api is not ClientApi.COMPLETIONS) or not isinstance(options, dict):
            return False
        is_needed = caller.has_costs or not self._experts[expert].is_free
        return is_needed and options.get("include_usage") is not True

    async def _send(
        self, context: RequestContext, chat: ChatRequest, call: Call, native: Native | None, asks_usage: bool
    ) -> BackendResponse:
        """The head of an expert's answer, and its body within the expert's time. Raises BackendError."""
        expert = call.expert
        entry = self._experts[expert]
        request = BackendRequest(
            chat.body,
            is_stream=chat.is_stream,
            request_id=context.decision_id,
            timeout_s=min(entry.timeout_s, entry.total_timeout_s),
            cache_salt=cache_salt(context.caller.tenant, self._hash_key),
            is_batch=context.is_batch,
            client_params=chat.client_params,
        )
        if native is not None:
            body = native.without_foreign_reasoning() if entry.engine is Engine.OPENAI else native.body
            request = request._replace(body=body, path=native.api.value, headers=native.headers)
        added: tuple[str, ...] = ()
        if asks_usage:
            options = cast("dict[str, object]", request.body.get("stream_options") or {})
            added = () if options else ("stream_options",)
            request = request._replace(body={**request.body, "stream_options": {**options, "include_usage": True}})
        if context.watch is not None:
            headers = context.watch.calls(expert, entry, request)
            request = request._replace(headers={**request.headers, **headers})
        time = AnswerTime(entry.total_timeout_s)
        try:
            with time:
                response = await call.send(request, added)
        except BaseException:
            time.close()
            raise
        response.chunks = GuardedChunks(response.chunks, time=time, key=self._keys.get(expert))
        return response

    def _following(
        self, decision: RoutingDecision, before: Collection[str], failure: ApiError, budget: RetryBudget
    ) -> str | None:
        """The expert to try after a failure, and those before it; None when there is none or trying is not allowed."""
        is_too_long = failure.code == TOO_LONG  # the router's estimate of tokens is low, in Chinese by three quarters
        if self._retries == 0 or not (failure.is_retryable or is_too_long):
            return None
        last = cast("str", failure.expert)
        left_out = {*before, last} | (set(decision.ranking) - self.pool.alive)
        if is_too_long:
            held = self._experts[last].context_tokens
            left_out |= {name for name in decision.ranking if self._experts[name].context_tokens <= held}
        expert = decision.following(left_out)
        adds_none = failure.code in UNSENT  # nothing was sent, so the experts get no more than one request
        return expert if expert is not None and (adds_none or budget.spend()) else None

    async def _attempt(
        self, context: RequestContext, chat: ChatRequest, expert: str, calls: Calls
    ) -> StreamedAnswer | WholeAnswer:
        """One expert's answer, of the first of its engines that gives one. Raises ApiError or BackendError, with the
        breakers told."""
        is_one = not self.pool.replicas(expert).are_several
        conversation = "" if is_one else f"{context.caller.tenant}\0{context.conversation}"
        caller = context.caller.key_id or ""
        tried: Collection[Replica] = ()
        problem: ApiError | None = None  # of the last engine that got the request, or of the first
        while True:
            try:
                call = await self.pool.call(expert, conversation, tried, caller=caller, is_batch=context.is_batch)
            except BusyError as busy:  # once an engine has failed, that nobody else takes it is not what went wrong
                raise problem or busy from None
            calls.at_work = expert
            if call.queue_ms is not None:
                calls.queue_ms = (calls.queue_ms or 0.0) + call.queue_ms
            try:
                answer = await self._beginning(context, chat, call)
            except RouterError as error:
                failure = api_error(error, expert)
            except BaseException:  # the client left, or a fault of ours: no verdict on the engine, whose trial must end
                call.abandoned()
                raise
            else:
                if isinstance(answer, StreamedAnswer) and not answer.is_whole:
                    answer.call = call
                    call.began()
                else:
                    call.succeeded()
                return answer
            failure.expert, tried = expert, call.tried
            if context.watch is not None:
                context.watch.fails(failure)
            tell(call, failure, context.session_id)
            if problem is None or failure.code not in UNSENT:
                problem = failure
            if not (failure.is_retryable and call.has_another):
                raise problem
            logger.info("an engine of expert %s failed (%s); another one is asked", expert, failure.cause)

    async def _beginning(self, context: RequestContext, chat: ChatRequest, call: Call) -> StreamedAnswer | WholeAnswer:
        """The part of an engine's answer that must be there before the client hears of it. Raises RouterError."""
        expert = call.expert
        native = self._native(chat, expert)
        asks_usage = chat.is_stream and self._asks_usage(context.caller, chat, expert, native)
        response = await self._send(context, chat, call, native, asks_usage)
        try:
            answer = await read_beginning(expert, response, self._keys.get(expert), native, asks_stream=chat.is_stream)
            answer = await as_asked(answer, chat)
        except BaseException:
            await response.chunks.aclose()
            raise
        answer.left_out = response.left_out
        if isinstance(answer, WholeAnswer) or answer.is_whole:
            await response.chunks.aclose()
        else:
            answer.hides_usage = asks_usage
        return answer

    def ended(self, answer: StreamedAnswer, error: BaseException | None = None) -> None:
        """Reports the end of a stream that `answer` began to the breaker; only a BackendError counts against an expert.

        A client that left and a fault of the gateway say nothing about the expert.
        """
        if answer.call is None:
            return  # its end was reported when it was there, or it comes from no expert
        if error is None:
            answer.call.succeeded()
        elif isinstance(error, BackendError):
            answer.call.failed(f"{error.status} {api_error(error).cause}")
        else:
            answer.call.abandoned()


def tell(call: Call, failure: ApiError, conversation: str) -> None:
    """Ends a call that gave no answer. Anything below 500 is a sign of life: the request was at fault, or the expert is
    at its limit. What an expert says of its key, its model or its address (401, 404, ...) was made a 502. A 500 may
    be about the prompt."""
    problem = failure.message if failure.code in OF_ENTRY else ""
    if problem:
        logger.warning("%s", problem)  # clients may not notice, since others answer them
    if failure.cooldown_s is not None:
        call.cool_down(failure.cooldown_s, is_spent=failure.code == OUT_OF_QUOTA)
    elif failure.status >= 500:
        blamed, is_down = conversation if failure.status == 500 else "", failure.status == 503
        call.failed(f"{failure.status} {failure.cause}", conversation=blamed, problem=problem, is_down=is_down)
    else:  # a 429 without a rest is about the request alone
        call.succeeded(is_at_fault=failure.status in ELSEWHERE - {429})


def cache_salt(tenant: str, hash_key: bytes) -> str:
    """Names a tenant's part of an engine's cache so that no other can guess it; empty without keys."""
    return keyed_hash(f"cache:{tenant}", hash_key) if tenant else ""


async def as_asked(answer: StreamedAnswer | WholeAnswer, chat: ChatRequest) -> StreamedAnswer | WholeAnswer:
    """An expert's answer as a stream or as a whole, whichever was asked for. Raises BackendError where it cannot be."""
    if isinstance(answer, StreamedAnswer) == chat.is_stream:
        return answer
    if isinstance(answer, WholeAnswer) and not answer.is_native and answer.facts.error_code is None:
        return await off_loop(partial(streamed, answer, chat), answer.body)
    sent = "a stream" if isinstance(answer, StreamedAnswer) else "no stream"
    raise BackendError(f"expert {answer.expert} sent {sent}, which is not what it was asked for", status=502)


def streamed(answer: WholeAnswer, chat: ChatRequest) -> StreamedAnswer:
    """A whole chat completion as the stream that a client asked for. Raises BackendError where it does not look so."""
    with chat_completion():
        events = b"".join(frames(reply_json(answer.body), has_usage=True))
    hides_usage = not wants_usage(chat.body)
    return StreamedAnswer(
        answer.expert, EVENT_STREAM, events, chunks_of(()), hides_usage=hides_usage, engine=answer.engine, is_whole=True
    )
