"""Calling experts for one request: the decided one, then others, until one begins to answer."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import cast

from base.errors import BackendError, BusyError, RouterError
from base.json_text import JsonError, to_json
from decision_log.privacy import keyed_hash
from fleet.backend import MAX_ERROR_BYTES, RETRY_AFTER_S, BackendRequest, BackendResponse, ChunkStream, read_all
from fleet.pool import ExpertPool
from fleet.replicas import ReplicatedBackend
from fleet.wires.builtin import chunks_of, frames, response_of
from fleet.wires.echo import wants_usage
from gateway.answer_guard import (
    EVENT_STREAM,
    AnswerTime,
    GuardedChunks,
    StreamedAnswer,
    WholeAnswer,
    error_fields,
    upstream_error,
    without_keys,
)
from gateway.answer_reader import chat_completion, read_answer, reply_json
from gateway.asgi import off_loop, read_off_loop
from gateway.chat_request import BEGIN, ChatRequest, Native, beginning
from gateway.exchange import Asked
from gateway.http_errors import OF_ENTRY, OUT_OF_QUOTA, TOO_LONG, UNSENT, ApiError, api_error
from router.expert_config import ExpertConfig, Wire
from router.types import RoutingDecision

JSON = "application/json"
MAX_ANSWER_BYTES = 64 << 20
EVENT_BEGINS = (b"data:", b"event:", b":")
CONTENT = re.compile(
    rb'"(?:content|text|delta|reasoning(?:_content)?|thinking|refusal|arguments|partial_json|name|data|transcript)"'
    rb'\s*:\s*"[^"]'
    rb'|"(?:finish|stop)_reason"\s*:\s*"[^"]|"status"\s*:\s*"(?:completed|incomplete)"|^data:\s*\[DONE\]',
    re.MULTILINE,
)
"""What of a stream is more than comments, a role and empty texts, on any wire, or its end. Inside a JSON string every
quote is escaped, so no text matches."""

ERROR_EVENT = re.compile(rb'^data:[ \t]*(\{[^\n]*"error"\s*:\s*[{"])', re.MULTILINE)
"""A line that may tell an error; a tool of the client's may be named so, too, where an engine repeats the request."""

MAX_LEAD_S, MAX_LEAD_BYTES = 10.0, 64 * 1024
"""What a stream says before its content waits no longer: comments keep the connections of clients open, too."""

RETRY_SHARE = 0.1  # of requests; gRPC's retry throttling uses the same order (A6: tokenRatio 0.1)
RETRY_BURST = 10.0

logger = logging.getLogger(__name__)


class RetryBudget:
    """A limit on the retries that the gateway adds to the experts' load, so that an outage is not made worse.

    A bucket that every request fills a little and every further try empties by one.
    """

    def __init__(self, share: float = RETRY_SHARE, burst: float = RETRY_BURST) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst

    def earn(self) -> None:
        """A request arrived."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def spend(self) -> bool:
        """Takes a further try; False when there is none left."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class ExpertCall:
    """Calls experts and keeps their breakers informed.

    Only failures before the first content lead to another expert, at most `retries` times, within the budget of further
    tries that all requests share. After a prompt that was too long that is one with a larger context. An expert that
    cannot be reached got nothing, so it counts for neither: with it go all that share its engine.

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
        self._pool, self._experts, self._keys, self._hash_key = pool, experts, keys, hash_key
        self._retries, self._budget = retries, RetryBudget()
        self._priced = {name for name, entry in experts.items() if entry.micro_usd(1, 1)}

    async def answer(
        self,
        asked: Asked,
        chat: ChatRequest,
        decision: RoutingDecision,
        failures: dict[str, str],
        known: str | None = None,
    ) -> StreamedAnswer | WholeAnswer:
        """The first answer that begins.

        Args:
            chat: as the expert gets it, which may hold more than what was asked.
            failures: gets the experts that failed before another was asked, with the cause.
            known: the decided expert's answer where it is there already.

        Raises:
            ApiError: none did; the last failure, with its expert.
        """
        if known is not None:
            request = BackendRequest(chat.body, is_stream=chat.is_stream, request_id=asked.decision_id)
            return await read_beginning(decision.expert, response_of(decision.expert, known, request))
        self._budget.earn()
        tries = 0  # requests that got to an expert
        expert = decision.expert
        while True:
            try:
                return await self._attempt(asked, chat, expert)
            except RouterError as error:
                failure = api_error(error, expert)
            failure.expert = expert
            if asked.watch is not None:
                asked.watch.fails(failure)
            tries += failure.code not in UNSENT
            following = self._following(decision, failures, failure) if tries <= self._retries else None
            if following is None:
                if failure.status == 429 and failure.retry_after_s is not None:
                    failure.retry_after_s = self._shortest_wait_s(decision.ranking, failure)
                raise failure.after(failures) if failures else failure
            failures[expert] = failure.cause
            expert = following

    def expect(self, expert: str) -> None:
        """A request was decided for an expert, whose engine must not sleep before it gets there; follow it with
        `expect_no_more`."""
        self._pool.expect(expert)

    def expect_no_more(self, expert: str) -> None:
        self._pool.expect_no_more(expert)

    async def whole(self, asked: Asked, chat: ChatRequest, expert: str) -> WholeAnswer:
        """One expert's answer to a request that is not streamed. Raises RouterError; nothing is tried again."""
        if expert in self._pool.asleep:  # since several were decided, of which one is expected
            raise BackendError(f"expert {expert} has just been put to sleep", status=503)
        answer = await self._attempt(asked, replace(chat, native=None), expert)
        assert isinstance(answer, WholeAnswer)
        return answer

    def _shortest_wait_s(self, ranking: Collection[str], failure: ApiError) -> float:
        """Seconds until the first that could serve may be asked, where the last one asked is at its limit."""
        waits_s = dict.fromkeys(self._pool.alive, RETRY_AFTER_S) | self._pool.rests_s()
        others = (waits_s[name] for name in ranking if name in waits_s and name != failure.expert)
        return min([failure.retry_after_s or 0.0, *others])

    def _native(self, chat: ChatRequest, expert: str) -> Native | None:
        """The client's own request where that expert speaks its wire."""
        native = chat.native
        return native if native is not None and native.wire in self._experts[expert].wires else None

    def _asks_usage(self, asked: Asked, chat: ChatRequest, expert: str, native: Native | None) -> bool:
        """Returns True where a stream's usage is needed and its client did not ask for it."""
        if native is None and chat.native is not None:
            return True  # what is told to the client has it
        body = chat.body if native is None else native.body
        options = body.get("stream_options") or {}
        if (native is not None and native.wire is not Wire.COMPLETIONS) or not isinstance(options, dict):
            return False
        is_needed = expert in self._priced or asked.caller.has_costs
        return is_needed and options.get("include_usage") is not True

    async def _send(
        self, asked: Asked, chat: ChatRequest, expert: str, native: Native | None, asks_usage: bool
    ) -> BackendResponse:
        """The head of an expert's answer, and its body within the expert's time. Raises BackendError."""
        entry = self._experts[expert]
        request = BackendRequest(
            chat.body,
            is_stream=chat.is_stream,
            request_id=asked.decision_id,
            timeout_s=min(entry.timeout_s, entry.total_timeout_s),
            cache_salt=cache_salt(asked.caller.tenant, self._hash_key),
        )
        if isinstance(self._pool.backend(expert), ReplicatedBackend):
            request = replace(request, conversation=conversation_of(asked), is_batch=asked.is_batch)
        if native is not None:
            request = replace(request, body=native.body, path=native.wire.value, headers=native.headers)
        added: tuple[str, ...] = ()
        if asks_usage:
            options = cast("dict[str, object]", request.body.get("stream_options") or {})
            added = () if options else ("stream_options",)
            request = replace(request, body={**request.body, "stream_options": {**options, "include_usage": True}})
        if asked.watch is not None:
            headers = asked.watch.calls(expert, entry, request)
            request = replace(request, headers={**request.headers, **headers})
        time = AnswerTime(entry.total_timeout_s)
        try:
            with time:
                response = await self._pool.send(expert, request, added)
        except BaseException:
            time.close()
            raise
        response.chunks = GuardedChunks(response.chunks, time=time, key=self._keys.get(expert))
        return response

    def _following(self, decision: RoutingDecision, before: Collection[str], failure: ApiError) -> str | None:
        """The expert to try after a failure, and those before it; None when there is none or trying is not allowed."""
        is_too_long = failure.code == TOO_LONG  # the router's estimate of tokens is low, in Chinese by three quarters
        if self._retries == 0 or not (failure.is_retryable or is_too_long):
            return None
        last = cast("str", failure.expert)
        left_out = {*before, last} | (set(decision.ranking) - self._pool.alive)
        if is_too_long:
            held = self._experts[last].context_tokens
            left_out |= {name for name in decision.ranking if self._experts[name].context_tokens <= held}
        expert = decision.following(left_out)
        adds_none = failure.code in UNSENT  # nothing was sent, so the experts get no more than one request
        return expert if expert is not None and (adds_none or self._budget.spend()) else None

    async def _attempt(self, asked: Asked, chat: ChatRequest, expert: str) -> StreamedAnswer | WholeAnswer:
        """One expert's answer. Raises ApiError or BackendError, with the breaker told."""
        pool = self._pool
        pool.started(expert)
        try:
            native = self._native(chat, expert)
            asks_usage = chat.is_stream and self._asks_usage(asked, chat, expert, native)
            response = await self._send(asked, chat, expert, native, asks_usage)
            try:
                answer = await read_beginning(
                    expert, response, self._keys.get(expert), native, asks_stream=chat.is_stream
                )
                answer = await as_asked(answer, chat)
                if response.left_out:
                    answer = replace(answer, left_out=response.left_out)
            except BaseException:
                await response.chunks.aclose()
                raise
        except BusyError:
            pool.abandoned(expert)
            raise
        except RouterError as error:
            # Anything below 500 is a sign of life: the request was at fault, or the expert is at its limit. What an
            # expert says of its key, its model or its address (401, 404, ...) was made a 502.
            failure = api_error(error)
            if failure.code in OF_ENTRY:
                logger.warning("%s", failure.message)  # clients may not notice, since others answer them
            if failure.status == 429 and failure.retry_after_s is not None:
                pool.at_limit(expert, failure.retry_after_s, is_spent=failure.code == OUT_OF_QUOTA)
            else:
                (pool.failed if failure.status >= 500 else pool.succeeded)(expert)
            raise
        except BaseException:  # the client left, or a fault of ours: no verdict on the expert, whose trial must end
            pool.abandoned(expert)
            raise
        if isinstance(answer, StreamedAnswer) and not answer.is_whole:
            pool.began(expert)
            return replace(answer, hides_usage=asks_usage) if asks_usage else answer
        await response.chunks.aclose()
        pool.succeeded(expert)
        return answer

    def ended(self, answer: StreamedAnswer, error: BaseException | None = None) -> None:
        """Reports the end of a stream that `answer` began to the breaker; only a BackendError counts against an expert.

        A client that left and a fault of the gateway say nothing about the expert.
        """
        if answer.is_whole:
            return  # its end was reported when it was there
        if error is None:
            self._pool.succeeded(answer.expert)
        elif isinstance(error, BackendError):
            self._pool.failed(answer.expert)
        else:
            self._pool.abandoned(answer.expert)


def conversation_of(asked: Asked) -> str:
    """Key by which a conversation's engine is chosen, the same on every gateway: its caller, its name, and its
    beginning, because clients name a user as often as a conversation."""
    begin = "" if asked.session.startswith(BEGIN) else beginning(asked.chat.messages)
    return f"{asked.caller.tenant}\0{asked.session}\0{begin}"


def cache_salt(tenant: str, hash_key: bytes) -> str:
    """Names a tenant's part of an engine's cache so that no other can guess it; empty without keys."""
    return keyed_hash(f"cache:{tenant}", hash_key) if tenant else ""


async def read_beginning(
    expert: str,
    response: BackendResponse,
    key: str | None = None,
    native: Native | None = None,
    *,
    asks_stream: bool = False,
) -> StreamedAnswer | WholeAnswer:
    """Reads what must be there before the client hears anything: a stream's first content, or all of a JSON answer.

    Args:
        key: ours for that expert, which no message may show.
        native: the request that it got, where that was not a chat request.
        asks_stream: a stream is known by how it begins, too. Servers may give it no type, or that of a text or of JSON.

    Raises:
        ApiError: the expert answered with an error, whatever its status.
        BackendError: the answer is empty, cut, or not a chat completion.
    """
    if not 200 <= response.status < 300:
        body = await read_all(response.chunks, MAX_ERROR_BYTES)
        raise upstream_error(expert, response.status, body, response.headers, key)
    said = response.headers.get("content-type", "")
    content_type, is_stream = shown_type(said or JSON, key)
    first = await lead(response.chunks) if is_stream or asks_stream else b""
    if not is_stream and first.startswith(EVENT_BEGINS):
        content_type, is_stream = EVENT_STREAM, True
    if is_stream:
        first = await through_content(expert, response.chunks, first, key)
        return StreamedAnswer(expert, content_type, first, response.chunks, native is not None, place=response.place)
    body = first + await read_all(response.chunks, MAX_ANSWER_BYTES)
    facts = await read_off_loop(partial(read_answer, as_chat=native.as_chat if native else None), body)
    if facts is None:
        kind = f"one of /v1/{native.wire}" if native else "a chat completion"
        raise BackendError(f"expert {expert} sent {content_type[:100]} that is not {kind}", status=502)
    if native is None and not facts.has_choice:
        raise error_in_answer(expert, body, key)
    return WholeAnswer(expert, content_type, body, facts, native is not None, response.place)


async def through_content(expert: str, chunks: ChunkStream, first: bytes, key: str | None) -> bytes:
    """A stream until its first content: the client has seen nothing yet, so another expert may answer in its place.

    Raises:
        ApiError: an error comes instead.
        BackendError: it breaks off or ends before.
    """
    held, line, ends_s = first, 0, time.monotonic() + MAX_LEAD_S  # `line` begins the last one, which may be cut
    while True:
        content = CONTENT.search(held, line)
        is_cut = False
        for found in ERROR_EVENT.finditer(held, line, content.start() if content else len(held)):
            event, is_whole, _ = held[found.start(1) :].partition(b"\n")
            is_cut = bool(first and not is_whole)
            if not is_cut and (told := told_error(event)) is not None:
                raise error_in_answer(expert, told, key)
        if (content and not is_cut) or len(held) > MAX_LEAD_BYTES or time.monotonic() > ends_s:
            return held
        if not first:
            raise BackendError(f"expert {expert} sent an empty stream", status=502, is_retryable=True)
        line = held.rfind(b"\n") + 1
        first = await lead(chunks)
        held += first


def told_error(event: bytes) -> bytes | None:
    """The object that holds the error of an event: itself, or of the Responses API the answer in it."""
    try:
        values = reply_json(event)
    except JsonError:
        return None
    told = (each for each in (values, values.get("response")) if isinstance(each, dict) and each.get("error"))
    return next(map(to_json, told), None)


async def lead(chunks: ChunkStream) -> bytes:
    """A piece from before the first content; nothing at the end. Raises BackendError, which allows another try."""
    try:
        return await anext(chunks, b"")
    except BackendError as cut:
        cut.is_retryable = cut.is_retryable or cut.status == 502
        raise


def error_in_answer(expert: str, body: bytes, key: str | None) -> ApiError:
    """The error that an expert sent with a status of success and in place of an answer. A code that is a status counts
    as one, as OpenRouter means it."""
    fields = error_fields(body)
    if fields is None:
        message = f"expert {expert} sent an error without a message in place of an answer"
        return ApiError(message, status=502, code="expert_error", is_retryable=True)
    code = fields.get("code")
    return upstream_error(expert, code if isinstance(code, int) and 400 <= code < 600 else 502, body, {}, key)


@lru_cache
def shown_type(content_type: str, key: str | None) -> tuple[str, bool]:
    """The content type as clients may see it, and its meaning: a stream of events."""
    shown = without_keys(content_type, key)
    is_stream = shown.lower().startswith(EVENT_STREAM)
    if not (shown.isascii() and shown.isprintable()):
        shown = EVENT_STREAM if is_stream else JSON
    return shown, is_stream


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
        answer.expert, EVENT_STREAM, events, chunks_of(()), hides_usage=hides_usage, place=answer.place, is_whole=True
    )
