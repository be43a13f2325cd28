"""POST /v1/chat/completions: decide, call the expert, pass its bytes on, write down how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial

from decision_log.privacy import named_session
from gateway.answer_reader import StreamReader, answer_text
from gateway.asgi import (
    ClientGoneError,
    ClientWatch,
    Receive,
    Send,
    read_body,
    send_body,
    send_error,
    send_head,
)
from gateway.exchange import CLIENT_GONE_STATUS, Exchange, request_id_of
from gateway.expert_call import ExpertCall, StreamedAnswer, WholeAnswer
from gateway.held_end import HeldEnd
from gateway.http_errors import ApiError, api_error
from gateway.intake import Claim
from gateway.off_loop import read_off_loop
from gateway.state import GatewayState
from gateway.stream_tails import StreamTails
from gateway.wire import ChatRequest, decode_chat
from router.errors import BackendError, RouterError, StoreError
from router.types import RoutingDecision, TerminalState

END_MARK = b"data: [DONE]"
MAX_JUDGED_CHARS = 20_000
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

logger = logging.getLogger(__name__)


class ChatEndpoint:
    """The hot path. One instance serves all requests."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._experts = ExpertCall(state)
        self._tails = StreamTails()
        self._decode = partial(decode_chat, bounds=state.config.gateway)

    async def __call__(
        self, headers: Mapping[bytes, bytes], key_id: str | None, claim: Claim, receive: Receive, send: Send
    ) -> None:
        """Answers one request; once it is read, the client gets an answer in OpenAI's shape or a broken connection.

        Raises:
            ApiError: the body cannot be read, or the answer's row could not be made safe now.
            ClientGoneError: the client left before it was.
        """
        exchange = Exchange(
            request_id_of(headers),
            key_id,
            wants_debug=headers.get(b"x-coe-debug") == b"1",
            is_probe=headers.get(b"x-coe-probe") == b"1",
        )
        exchange.request, received_at_s = await self._read(headers, claim, receive)
        session = named_session(headers.get(b"x-session-id", b"")) or exchange.request.session
        exchange.session_id = self._state.session_id(session)
        await self._run(exchange, exchange.request, received_at_s, receive, send)

    async def _read(self, headers: Mapping[bytes, bytes], claim: Claim, receive: Receive) -> tuple[ChatRequest, float]:
        """The request, and when its last byte was here. The bytes themselves are let go."""
        raw = await read_body(headers, receive, self._state.config.gateway.max_body_bytes, claim)
        received_at_s = time.perf_counter()
        request = await read_off_loop(self._decode, raw)
        await self._state.check_log()
        return request, received_at_s

    async def _run(
        self, exchange: Exchange, request: ChatRequest, received_at_s: float, receive: Receive, send: Send
    ) -> None:
        """The request edge: every way to end leads through here."""
        try:
            async with ClientWatch(receive), self._state.admission:
                exchange.is_admitted = True
                await self._answer(exchange, request, received_at_s, send)
        except ClientGoneError:
            exchange.end(TerminalState.CLIENT_GONE, CLIENT_GONE_STATUS, "client_gone")
        except RouterError as error:
            await self._fail(exchange, api_error(error, exchange.served_expert), send)
        except asyncio.CancelledError:
            stopping = ApiError("the gateway is stopping", status=503, code="server_shutting_down", retry_after_s=1.0)
            await self._fail(exchange, stopping, send)
            raise
        except Exception as error:  # noqa: BLE001
            # The message may hold prompt text, so only the type is written down.
            self._state.metrics.faults.inc()
            logger.error("request %s met an unforeseen %s", exchange.request_id, type(error).__name__)
            await self._fail(exchange, ApiError("internal error", status=500, code="gateway_fault"), send)
        finally:
            self._finish(exchange)

    async def _answer(self, exchange: Exchange, request: ChatRequest, received_at_s: float, send: Send) -> None:
        decided = await self._state.decide(request, exchange.decision_id, exchange.session_id)
        exchange.shadow = decided.shadow
        exchange.decided(decided.decision, decided.inputs, decided.embedding)
        exchange.is_sampled = self._state.judge is not None and self._state.judge.samples()
        request = await self._with_sources(exchange, request, decided.decision)
        exchange.overhead_ms = (time.perf_counter() - received_at_s) * 1e3
        answer = await self._experts.answer(exchange, request, decided.decision)
        if isinstance(answer, StreamedAnswer):
            await self._relay(exchange, request, answer, send)
        else:
            await self._send_whole(exchange, answer, send)

    async def _with_sources(self, exchange: Exchange, request: ChatRequest, decision: RoutingDecision) -> ChatRequest:
        """The request as its expert gets it: with sources where experts.yaml attaches a store to the category."""
        attachments = self._state.attachments
        attached = None if attachments is None else attachments.attached_to(decision)
        if attachments is None or attached is None:
            return request
        request, exchange.sources = await attachments.enrich(exchange, request, decision.expert, attached)
        return request

    async def _send_whole(self, exchange: Exchange, answer: WholeAnswer, send: Send) -> None:
        facts = answer.facts
        exchange.usage, exchange.finish_reason = facts.usage, facts.finish_reason
        exchange.ttft_ms = exchange.elapsed_ms()
        if exchange.is_sampled:
            exchange.answer_text = await read_off_loop(answer_text, answer.body)
        if facts.error_code is None:
            exchange.end(TerminalState.ANSWERED, 200)
        else:
            exchange.end(TerminalState.UPSTREAM_ERROR, 200, facts.error_code)
        await self._commit(exchange)
        exchange.has_started = True
        body = answer.body if exchange.sources is None else exchange.sources.in_body(answer.body)
        await send_body(send, 200, body, exchange.response_headers(), answer.content_type)

    async def _relay(self, exchange: Exchange, request: ChatRequest, answer: StreamedAnswer, send: Send) -> None:
        """Passes a stream on, each piece as it comes; reads along after the piece is on its way.

        Raises:
            BackendError: the stream was cut.
            StoreError: its row could not be made safe; the client has not seen the end.
        """
        pool, expert = self._state.pool, exchange.served_expert or ""
        reader = exchange.reader = StreamReader(MAX_JUDGED_CHARS if exchange.is_sampled else 0)
        end = HeldEnd() if self._state.sink.is_durable else None
        exchange.has_started, exchange.status = True, 200
        try:
            headers = {"content-type": answer.content_type, **STREAM_HEADERS, **exchange.response_headers()}
            await send_head(send, 200, headers)
            chunk = answer.first
            while chunk:
                if end is None and END_MARK in chunk:
                    exchange.take_number(self._state.sink)
                piece = chunk if end is None else end.pass_on(chunk)
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if exchange.ttft_ms is None:
                    exchange.ttft_ms = exchange.elapsed_ms()
                reader.feed(chunk)
                if reader.is_done:
                    break  # whatever an expert does after its end mark, the answer is complete
                chunk = await anext(answer.chunks, b"")
            reader.close()
            if not (reader.is_complete or reader.is_broken or reader.error_code):
                raise BackendError("the expert's answer was cut off", status=502)
        except BackendError:
            pool.failed(expert)
            raise
        except BaseException:  # the client left, or a fault of ours
            pool.abandoned(expert)
            raise
        finally:
            exchange.usage = reader.usage(request.facts.prompt_tokens)
            exchange.finish_reason = reader.finish_reason
            exchange.answer_text = reader.text if exchange.is_sampled else None
            if reader.is_done:
                self._tails.read(answer.chunks)
            else:
                await answer.chunks.aclose()
        pool.succeeded(expert)
        if reader.error_code or reader.is_broken:
            exchange.end(TerminalState.UPSTREAM_ERROR, 200, reader.error_code or "broken_stream")
        else:
            exchange.end(TerminalState.ANSWERED, 200)
        await self._commit(exchange)
        await send({"type": "http.response.body", "body": b"" if end is None else end.held})

    async def _commit(self, exchange: Exchange) -> None:
        """Before the end of an answer: returns once its row is safe, where the log's mode asks for that.

        Otherwise it gets its number only, and its row is written after the answer.

        Raises:
            StoreError: it did not become safe in time.
        """
        sink = self._state.sink
        if not exchange.is_admitted or exchange.is_recorded:
            return
        if sink.is_durable:
            exchange.is_recorded = True
            await sink.commit(exchange.record(sink, self._state.config.experts))
        else:
            exchange.take_number(sink)

    async def _fail(self, exchange: Exchange, error: ApiError, send: Send) -> None:
        """Ends an exchange with an error: as an answer, or as the last event of a stream that has begun.

        A stream that was cut inside an event is left without an end: the connection breaks, which no client takes for
        a complete answer.
        """
        if exchange.decision is None:
            state = TerminalState.REJECTED
        elif error.status == 504:
            state = TerminalState.TIMED_OUT
        else:
            state = TerminalState.UPSTREAM_ERROR
        exchange.end(state, 200 if exchange.has_started else error.status, error.code)
        try:
            await self._commit(exchange)
        except StoreError as failure:
            error = api_error(failure)
        if not exchange.has_started:
            exchange.has_started = True
            await send_error(send, error, exchange.response_headers())
        elif exchange.reader is not None and exchange.reader.is_at_boundary:
            await send({"type": "http.response.body", "body": b"data: " + error.body + b"\n\n"})

    def _finish(self, exchange: Exchange) -> None:
        """The record of the exchange, once its last byte is out."""
        state = self._state
        state.metrics.observe(exchange)
        if exchange.is_admitted and not exchange.is_recorded:
            state.sink.append(exchange.record(state.sink, state.config.experts))
        if exchange.is_sampled and state.judge is not None:
            state.judge.offer(exchange)
