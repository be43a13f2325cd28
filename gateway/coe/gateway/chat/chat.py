"""A chat in any API: decide, call the expert, pass its bytes on, write down how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from coe.base.errors import BackendError, StoreError
from coe.decision_log.decision_record import TerminalState
from coe.decision_log.privacy import named_session, new_decision_id
from coe.gateway.chat_request import ChatRequest, identity, json_object
from coe.gateway.exchange import ChatRow, Ending, RequestContext, response_headers
from coe.gateway.experts.answer import EVENT_STREAM, StreamedAnswer, WholeAnswer
from coe.gateway.experts.answer_reader import StreamTails, answer_text
from coe.gateway.http.asgi import ClientWatch, decode_json, read_body, read_off_loop, send_body, send_head
from coe.gateway.http_errors import CLIENT_GONE_STATUS, ClientGoneError, api_error
from coe.router.prices.usage import Usage

if TYPE_CHECKING:
    from coe.gateway.chat.adapters.adapter import Adapter
    from coe.gateway.chat.deciding import Decider
    from coe.gateway.chat.judge import Judge
    from coe.gateway.chat.limits import ChatLimits
    from coe.gateway.chat.log import ChatLog
    from coe.gateway.chat.strategy_run import StrategyRun
    from coe.gateway.exchange import Decided
    from coe.gateway.experts.answer_reader import JsonAnswer
    from coe.gateway.experts.call import ExpertCall
    from coe.gateway.http.admission import ConcurrencyLimit
    from coe.gateway.http.asgi import Arrival
    from coe.gateway.http_errors import ApiError
    from coe.router.config.gateway import GatewayConfig
    from coe.router.strategies.agree import Chosen
    from coe.router.types import RoutingDecision

MAX_JUDGED_CHARS = 20_000
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ChatEndpoint:
    """The hot path. One instance serves all requests."""

    def __init__(
        self,
        decider: Decider,
        experts: ExpertCall,
        several: Callable[[RequestContext, ChatRequest, RoutingDecision, Chosen], StrategyRun],
        log: ChatLog,
        bounds: GatewayConfig,
        concurrency: ConcurrencyLimit,
        limits: ChatLimits,
        judge: Judge | None,
    ) -> None:
        self.decider, self.experts, self.several, self.log = decider, experts, several, log
        self.bounds, self.concurrency, self.limits = bounds, concurrency, limits
        self.judge = judge
        self.tails = StreamTails()

    async def __call__(self, adapter: Adapter, arrival: Arrival) -> None:
        """Answers one request in an API; once it is read, the client gets an answer in that shape, or a broken
        connection.

        Raises:
            ApiError: the body cannot be read.
            StoreError: the answer's row could not be made safe now.
            ClientGoneError: the client left before the body was read.
        """
        headers, caller, watch = arrival.headers, arrival.caller, arrival.watch
        at, arrived_at_s = time.time(), time.perf_counter()
        raw = await read_body(headers, arrival.receive, self.bounds.max_body_bytes, arrival.admission)
        received_at_s = time.perf_counter()
        decode = partial(decoded, adapter=adapter, bounds=self.bounds, headers=headers)
        chat = await read_off_loop(decode, raw)
        if caller.caps:
            chat = self.limits.bound(chat, caller)
        session = named_session(headers) or chat.session
        context = RequestContext(
            arrival.request_id,
            new_decision_id(),
            caller,
            identity(session, chat),
            self.decider.session_id(session, caller.tenant),
            at,
            arrived_at_s,
            received_at_s,
            headers.get(b"x-coe-probe") == b"1",
            arrival.is_batch,
            watch,
        )
        self.log.sink.check()
        await ChatExchange(self, adapter, arrival, ChatRow(context, chat)).run()


class ChatExchange:
    """One request on its way. However it ends, its outcome is counted and written down once."""

    def __init__(self, endpoint: ChatEndpoint, adapter: Adapter, arrival: Arrival, row: ChatRow) -> None:
        self._endpoint, self._adapter, self._arrival, self._row = endpoint, adapter, arrival, row
        self._told_of_end: list[Callable[[ChatRow], None]] = [endpoint.log.finish, endpoint.decider.ended]
        if row.context.watch is not None:
            self._told_of_end.insert(0, row.context.watch.ends)
        self._limit_headers: Mapping[str, str] = {}  # of a caller with caps
        self._has_begun = False  # the head of the answer is on its way to the client
        # How an error ends a stream that has begun; of one that has only said that it waits, as the adapter does.
        self._last_words: Callable[[ApiError], bytes] = partial(adapter.error_event, request_id=row.context.request_id)

    async def run(self) -> None:
        """The request edge: every way to end leads through here."""
        row = self._row
        try:
            with ClientWatch(self._arrival.peer):
                async with self._endpoint.concurrency:
                    row.is_admitted = True
                    await self._answer()
        except ClientGoneError:
            row.ending = Ending(TerminalState.CLIENT_GONE, CLIENT_GONE_STATUS, "client_gone")
        except asyncio.CancelledError as error:
            await self._fail(error)
            raise
        except Exception as error:  # noqa: BLE001
            await self._fail(error)
        finally:
            for tell in self._told_of_end:
                tell(row)

    async def _answer(self) -> None:
        endpoint, row, context, chat = self._endpoint, self._row, self._row.context, self._row.chat
        decided = await endpoint.decider.decide(
            chat, context.decision_id, context.session_id, context.caller, context.conversation
        )
        endpoint.experts.pool.expect(decided.decision.expert)
        try:
            if context.caller.caps:  # one over a cap is rejected as if nothing had been decided
                hold = await endpoint.limits.reserve(context, chat, decided.decision, decided.strategy)
                self._limit_headers = hold.headers
                self._told_of_end.insert(0, hold.settle)
            row.decided, row.calls.strategy = decided, decided.declined
            keep_chars = 0 if decided.slot is None else MAX_JUDGED_CHARS
            if endpoint.judge is not None and endpoint.judge.samples():
                keep_chars = MAX_JUDGED_CHARS
                self._told_of_end.append(endpoint.judge.offer)
            answer = await self._begun(decided)
            row.calls.expert, row.answer.engine, row.answer.left_out = answer.expert, answer.engine, answer.left_out
            if context.watch is not None:
                context.watch.hears(answer.expert)
            endpoint.decider.remember(decided, chat.facts, answer.expert)
            if isinstance(answer, StreamedAnswer):
                await self._relay(answer, decided, keep_chars)
            else:
                await self._send_whole(answer, decided, keep_chars)
        finally:
            endpoint.experts.pool.expect_no_more(decided.decision.expert)

    async def _begun(self, decided: Decided) -> StreamedAnswer | WholeAnswer:
        """The answer as far as it must be there before the client hears of it."""
        row, answer = self._row, None
        row.calls.overhead_ms = (time.perf_counter() - row.context.received_at_s) * 1e3
        if self._endpoint.decider.may_set_params(decided.decision.policy):
            row.chat = row.chat._replace(client_params=True)
        if decided.strategy is not None:
            answer = await self._ask_several(decided.decision, decided.strategy)
        return answer or await self._endpoint.experts.answer(row.context, row.chat, decided, row.calls)

    async def _ask_several(self, decision: RoutingDecision, chosen: Chosen) -> StreamedAnswer | WholeAnswer | None:
        """The answer that a strategy settles on; None where nobody gave one, so that one expert serves."""
        row = self._row
        run = self._endpoint.several(row.context, row.chat, decision, chosen)
        try:
            return await run.answer(self._wait_on_stream)
        finally:
            trace = run.trace()
            row.calls.strategy, row.answer.usage = trace, Usage.total([call.usage for call in trace.calls])

    async def _wait_on_stream(self) -> None:
        """Begins the client's stream with a comment. Who will answer is not known yet, so no header names an expert."""
        headers = self._headers()
        headers.pop("x-coe-expert", None)
        await self._begin_stream(EVENT_STREAM, headers)
        await self._arrival.send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})

    async def _begin_stream(self, content_type: str, headers: Mapping[str, str]) -> None:
        if not self._has_begun:
            self._has_begun = True
            await send_head(self._arrival.send, 200, {"content-type": content_type, **STREAM_HEADERS, **headers})

    async def _pass_on(self, piece: bytes) -> None:
        """Sends a piece of a stream."""
        if piece:
            await self._arrival.send({"type": "http.response.body", "body": piece, "more_body": True})
        if self._row.answer.ttft_ms is None:
            self._row.answer.ttft_ms = self._row.context.elapsed_ms()

    async def _send_whole(self, answer: WholeAnswer, decided: Decided, keep_chars: int) -> None:
        row = self._row
        self._hear(answer.expert, answer.facts, decided)
        row.answer.ttft_ms = row.context.elapsed_ms()
        if keep_chars:
            row.answer.text = await read_off_loop(answer_text, answer.body)
        body = await self._adapter.body(answer, row.chat, row.context)
        await self._endpoint.log.commit(row)
        self._has_begun, self._last_words = True, nothing
        await send_body(self._arrival.send, 200, body, self._headers(), answer.content_type)

    async def _relay(self, answer: StreamedAnswer, decided: Decided, keep_chars: int) -> None:
        """Passes a stream on and ends it once its row is safe.

        Raises:
            BackendError: the stream was cut.
            StoreError: its row could not be made safe; the client has not seen the end.
        """
        endpoint, row = self._endpoint, self._row
        delivery = self._adapter.delivery(answer, row.chat, keep_chars, row.context)
        reader, self._last_words = delivery.reader, delivery.fail
        try:
            await self._begin_stream(answer.content_type, self._headers())
            await delivery.stream(self._pass_on)
        except BaseException as error:
            endpoint.experts.ended(answer, error)
            if not (isinstance(error, BackendError) and reader.error_code):  # it has told why it ends
                raise
        else:
            endpoint.experts.ended(answer)
        finally:
            self._hear(answer.expert, reader.facts(row.chat.facts.prompt_tokens), decided)
            row.answer.text = reader.text if keep_chars else None
            if reader.is_done:
                endpoint.tails.read(answer.chunks)
            else:
                await answer.chunks.aclose()
        await endpoint.log.commit(row)
        await self._arrival.send({"type": "http.response.body", "body": delivery.end()})

    def _hear(self, expert: str, facts: JsonAnswer, decided: Decided) -> None:
        """Notes what an answer states at its end, which may be an error of the expert's."""
        row = self._row
        row.answer.usage, row.answer.finish_reason = facts.usage, facts.finish_reason
        if isinstance(facts.model, str) and decided.known is None:
            row.answer.model = self._endpoint.log.served.named(expert, facts.model)
        state = TerminalState.ANSWERED if facts.error_code is None else TerminalState.UPSTREAM_ERROR
        row.ending = Ending(state, 200, facts.error_code)

    def _headers(self) -> dict[str, str]:
        is_debug = self._arrival.headers.get(b"x-coe-debug") == b"1"
        headers = response_headers(self._row, is_debug=is_debug)
        headers |= self._limit_headers
        return headers

    async def _fail(self, failure: BaseException) -> None:
        """Ends the exchange with an error: as an answer, or as the last event of a stream that has begun."""
        row, request_id, send = self._row, self._row.context.request_id, self._arrival.send
        error = api_error(failure, row.calls.expert, request_id)
        self._endpoint.log.metrics.failed(error)
        row.is_admitted &= error.is_logged
        row.calls.expert = error.expert or row.calls.expert
        row.ending = Ending(failed_state(error, row), 200 if self._has_begun else error.status, error.logged)
        try:
            await self._endpoint.log.commit(row)
        except StoreError as unsafe:
            error = api_error(unsafe)
        if not self._has_begun:
            self._has_begun = True
            await send_body(send, error.status, self._adapter.error(error, request_id), self._headers() | error.headers)
        elif last := self._last_words(error):
            await send({"type": "http.response.body", "body": last})


def nothing(error: ApiError) -> bytes:
    """The words behind a whole answer."""
    return b""


def failed_state(error: ApiError, row: ChatRow) -> TerminalState:
    """The end of a chat by an error."""
    if row.decided is None:
        return TerminalState.REJECTED
    return TerminalState.TIMED_OUT if error.status == 504 else TerminalState.UPSTREAM_ERROR


def decoded(raw: bytes, adapter: Adapter, bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
    """The request of a body. Raises ApiError 400 naming the field, its value and what is allowed."""
    return adapter.request(json_object(decode_json(raw)), bounds, headers)
