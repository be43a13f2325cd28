"""Calling experts for one request: the decided one, then others, until one begins to answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from gateway.answer_guard import GuardedChunks, too_late, without_keys
from gateway.answer_reader import JsonAnswer, read_answer
from gateway.exchange import Exchange
from gateway.http_errors import ApiError, api_error, upstream_error
from gateway.off_loop import read_off_loop
from gateway.state import GatewayState
from gateway.wire import ChatRequest
from router.errors import BackendError, RouterError
from router.pipeline import following
from router.protocols import BackendRequest, BackendResponse, ChunkStream
from router.types import RoutingDecision

MAX_ERROR_BYTES = 1 << 20
JSON, EVENT_STREAM = "application/json", "text/event-stream"
MAX_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """A stream whose first piece is here. Close `chunks` in any case."""

    content_type: str
    first: bytes
    chunks: ChunkStream


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """A complete answer and what it says of itself."""

    content_type: str
    body: bytes
    facts: JsonAnswer


class ExpertCall:
    """Calls experts and keeps their breakers informed.

    Only failures before the first byte go on to another expert, at most `gateway.retries` times, within the budget of
    further tries that all requests share.
    """

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def answer(
        self, exchange: Exchange, request: ChatRequest, decision: RoutingDecision
    ) -> StreamedAnswer | WholeAnswer:
        """The first answer that begins; `exchange.served_expert` says whose it is.

        Raises:
            ApiError: none did; the last failure.
        """
        self._state.retry_budget.earn()
        failed: list[str] = []
        expert = decision.expert
        while True:
            exchange.served_expert = expert
            try:
                return await self._attempt(exchange, request, expert)
            except RouterError as error:
                failure = api_error(error, expert)
            failed.append(expert)
            following = self._following(decision, failed) if failure.is_retryable else None
            if following is None:
                raise failure if len(failed) == 1 else failure.after(failed[:-1])
            expert = following

    async def _send(self, exchange: Exchange, request: ChatRequest, expert: str) -> BackendResponse:
        """The head of an expert's answer, and its body within the expert's time. Raises BackendError."""
        entry = self._state.config.experts[expert]
        until_s = asyncio.get_running_loop().time() + entry.total_timeout_s
        asked = BackendRequest(
            request.body,
            is_stream=request.is_stream,
            request_id=exchange.request_id,
            timeout_s=min(entry.timeout_s, entry.total_timeout_s),
            cache_salt=self._state.cache_salt(exchange.key_id),
        )
        try:
            async with asyncio.timeout_at(until_s):
                response = await self._state.pool.backend(expert).send(asked)
        except TimeoutError as error:
            raise too_late(entry.total_timeout_s) from error
        key = self._state.expert_keys.get(expert)
        guarded = GuardedChunks(response.chunks, until_s=until_s, total_s=entry.total_timeout_s, key=key)
        return replace(response, chunks=guarded)

    def _following(self, decision: RoutingDecision, failed: list[str]) -> str | None:
        """The next expert to try; None when there is none or trying is not allowed."""
        if len(failed) > self._state.config.gateway.retries:
            return None
        expert = following(decision, {*failed} | (set(decision.ranking) - self._state.pool.alive))
        return expert if expert is not None and self._state.retry_budget.spend() else None

    async def _attempt(self, exchange: Exchange, request: ChatRequest, expert: str) -> StreamedAnswer | WholeAnswer:
        """One expert's answer. Raises ApiError or BackendError, with the breaker told."""
        pool = self._state.pool
        pool.started(expert)
        try:
            response = await self._send(exchange, request, expert)
            try:
                answer = await read_beginning(expert, response, self._state.expert_keys.get(expert))
            except BaseException:
                await response.chunks.aclose()
                raise
        except ApiError as error:
            # Anything below 500 is a sign of life: the request was at fault, or the expert is busy. What an expert says
            # of its key, its model or its address (401, 404, ...) was made a 502.
            (pool.failed if error.status >= 500 else pool.succeeded)(expert)
            raise
        except RouterError:
            pool.failed(expert)
            raise
        except BaseException:  # the client left, or a fault of ours: no verdict on the expert, whose trial must end
            pool.abandoned(expert)
            raise
        if isinstance(answer, WholeAnswer):
            await response.chunks.aclose()
            pool.succeeded(expert)
        else:
            pool.began(expert)
        return answer


async def read_beginning(
    expert: str, response: BackendResponse, key: str | None = None
) -> StreamedAnswer | WholeAnswer:
    """What must be there before the client hears anything: a stream's first piece, or all of a JSON answer.

    Args:
        key: ours for that expert, which no message may show.

    Raises:
        ApiError: the expert answered with an error status.
        BackendError: the answer is empty, cut, or no chat completion.
    """
    if not 200 <= response.status < 300:
        body = await read_all(response.chunks, MAX_ERROR_BYTES)
        raise upstream_error(expert, response.status, body, response.headers, key)
    content_type = without_keys(response.headers.get("content-type", JSON), key)
    is_stream = content_type.lower().startswith(EVENT_STREAM)
    if not (content_type.isascii() and content_type.isprintable()):
        content_type = EVENT_STREAM if is_stream else JSON
    if is_stream:
        first = await anext(response.chunks, b"")
        if not first:
            raise BackendError(f"expert {expert} sent an empty stream", status=502, is_retryable=True)
        return StreamedAnswer(content_type, first, response.chunks)
    body = await read_all(response.chunks, MAX_ANSWER_BYTES)
    facts = await read_off_loop(read_answer, body)
    if facts is None:
        raise BackendError(f"expert {expert} sent an answer that is no chat completion", status=502)
    return WholeAnswer(content_type, body, facts)


async def read_all(chunks: ChunkStream, max_bytes: int) -> bytes:
    """Raises BackendError when the body is cut or larger than `max_bytes`."""
    pieces = []
    size = 0
    async for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise BackendError(f"the expert's answer is larger than {max_bytes} bytes", status=502)
    return b"".join(pieces)
