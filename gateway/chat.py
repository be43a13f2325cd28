"""A chat on any surface: decide, call the expert, pass its bytes on, write down how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from base.errors import BackendError, StoreError
from decision_log.decision_record import TerminalState
from decision_log.privacy import named_session
from gateway.answer_guard import EVENT_STREAM, StreamedAnswer, WholeAnswer
from gateway.answer_reader import StreamReader, answer_text
from gateway.asgi import ClientWatch, Receive, Scope, Send, decode_json, read_body, read_off_loop, send_body, send_head
from gateway.chat_limits import ChatLimits
from gateway.chat_log import ChatLog, ChatRow
from gateway.chat_request import ChatRequest, json_object
from gateway.exchange import MAX_MODEL_CHARS, Asked, Outcome, Watch, new_decision_id, request_id_of, response_headers
from gateway.http_errors import CLIENT_GONE_STATUS, ClientGoneError, api_error
from gateway.intake import Claim
from gateway.keys.grants import Caller
from gateway.passed_stream import EditedEvents, HeldEnd, StreamTails
from gateway.surfaces.surface import Surface, Telling
from gateway.tool_calls import CallEvents
from router.builtins import ABSTAINED, ABSTAINED_STATUS
from router.gateway_config import GatewayConfig
from router.strategies.types import Chosen
from router.types import RoutingDecision
from router.usage import Usage

if TYPE_CHECKING:
    from gateway.deciding import Decider
    from gateway.expert_call import ExpertCall
    from gateway.judge import Judge
    from gateway.retrieval.attachment import Attachments
    from gateway.strategy_run import StrategyRun

MAX_JUDGED_CHARS = 20_000
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class ChatEndpoint:
    """The hot path. One instance serves all requests."""

    def __init__(
        self,
        decider: Decider,
        experts: ExpertCall,
        several: Callable[[Asked, ChatRequest, RoutingDecision, Chosen], StrategyRun],
        log: ChatLog,
        limits: ChatLimits,
        enricher: Attachments | None,
        judge: Judge | None,
    ) -> None:
        self.decider, self.experts, self.several, self.log = decider, experts, several, log
        self.limits, self.enricher, self.judge = limits, enricher, judge
        self.tails = StreamTails()

    async def __call__(
        self, surface: Surface, scope: Scope, headers: Mapping[bytes, bytes], claim: Claim, receive: Receive, send: Send
    ) -> None:
        """Answers one request on a surface; once it is read, the client gets an answer in that shape, or a broken
        connection.

        Raises:
            ApiError: the body cannot be read.
            StoreError: the answer's row could not be made safe now.
            ClientGoneError: the client left before the body was read.
        """
        asked = await self._read(headers, scope, claim, receive, surface)
        await self.log.sink.check()
        await ChatExchange(self, asked, surface, send).run(ClientWatch(scope))

    async def _read(
        self, headers: Mapping[bytes, bytes], scope: Scope, claim: Claim, receive: Receive, surface: Surface
    ) -> Asked:
        """Reads the request. Its bytes are not kept."""
        caller: Caller = scope["coe_caller"]
        watch: Watch | None = scope["coe_watch"]
        at, arrived_at_s = time.time(), time.perf_counter()
        raw = await read_body(headers, receive, self.limits.of_body.max_body_bytes, claim)
        received_at_s = time.perf_counter()
        decode = partial(decoded, surface=surface, bounds=self.limits.of_body, headers=headers)
        chat = self.limits.bound(await read_off_loop(decode, raw), caller)
        session = named_session(headers) or chat.session
        return Asked(
            request_id_of(headers),
            caller,
            self.decider.session_id(session, caller.tenant),
            session,
            chat,
            at,
            arrived_at_s,
            received_at_s,
            wants_debug=headers.get(b"x-coe-debug") == b"1",
            is_probe=headers.get(b"x-coe-probe") == b"1",
            is_batch=scope.get("coe_is_batch", False),
            decision_id=new_decision_id() if watch is None else watch.decision_id or new_decision_id(),
            watch=watch,
        )


class ChatExchange:
    """One request on its way. However it ends, its outcome is counted and written down once."""

    def __init__(self, endpoint: ChatEndpoint, asked: Asked, surface: Surface, send: Send) -> None:
        self._endpoint, self._asked, self._surface, self._send = endpoint, asked, surface, send
        self._outcome = Outcome()
        self._row = ChatRow(endpoint.log, asked)
        self._has_started = False  # the head of the answer is on its way to the client
        self._is_waiting = False  # so is a stream that has only said that it waits
        self._reader: StreamReader | None = None  # follows the stream while one passes
        self._telling: Telling | None = None  # there where the answer is told on another surface than the expert's
        self._expected: str | None = None  # the expert whose engine stays awake for the request
        self._is_sampled = False  # a judge needs the answer
        self._keeps_text = False  # the answer is kept until its end, for a judge or the cache
        self._answer_text: str | None = None  # there only when it is kept; never logged

    async def run(self, watch: ClientWatch) -> None:
        """The request edge: every way to end leads through here."""
        outcome = self._outcome
        try:
            with watch:
                async with self._endpoint.limits.admission:
                    outcome.is_admitted = True
                    await self._answer()
        except ClientGoneError:
            outcome.end(TerminalState.CLIENT_GONE, CLIENT_GONE_STATUS, "client_gone")
        except asyncio.CancelledError as error:
            await self._fail(error)
            raise
        except Exception as error:  # noqa: BLE001
            await self._fail(error)
        finally:
            if self._asked.watch is not None:
                self._asked.watch.ends(self._asked, outcome)
            self._endpoint.limits.settle(self._asked, outcome)
            self._row.finish(outcome)
            if self._is_sampled and self._endpoint.judge is not None:
                self._endpoint.judge.offer(self._asked, outcome, self._answer_text)
            self._endpoint.decider.ended(self._asked, outcome, self._answer_text)
            if self._expected is not None:
                self._endpoint.experts.pool.expect_no_more(self._expected)

    async def _answer(self) -> None:
        endpoint, asked, outcome = self._endpoint, self._asked, self._outcome
        decided = await endpoint.decider.decide(
            asked.chat, asked.decision_id, asked.session_id, asked.caller, asked.session
        )
        decision, chat = decided.decision, asked.chat
        self._expected = decision.expert
        endpoint.experts.pool.expect(decision.expert)
        chosen = decided.chosen if isinstance(decided.chosen, Chosen) else None
        outcome.hold = await endpoint.limits.reserve(asked, decision, chosen)
        outcome.strategy = None if isinstance(decided.chosen, Chosen) else decided.chosen
        outcome.decided = decided  # a request over a cap is rejected as if nothing had been decided
        self._is_sampled = endpoint.judge is not None and endpoint.judge.samples()
        self._keeps_text = self._is_sampled or decided.slot is not None
        if endpoint.enricher is not None and chat.facts.needs_wire is None:
            chat, outcome.sources = await endpoint.enricher.enrich(asked, decision)
        outcome.overhead_ms = (time.perf_counter() - asked.received_at_s) * 1e3
        known = None if decided.slot is None else decided.slot.answer
        answer: StreamedAnswer | WholeAnswer | None = None
        if chosen is not None:
            answer = await self._ask_several(chat, decision, chosen)
        if answer is None:
            answer = await endpoint.experts.answer(asked, chat, decision, outcome, known)
        outcome.expert, outcome.engine, outcome.left_out = answer.expert, answer.engine, answer.left_out
        if asked.watch is not None:
            asked.watch.hears(answer.expert)
        endpoint.decider.begun(asked, decided, answer.expert)
        told = None if answer.is_native else self._surface.answer(asked.chat, asked.decision_id, asked.request_id)
        self._telling = None if told is None else Telling(self._surface, told)
        if isinstance(answer, StreamedAnswer):
            await self._relay(answer, chat)
        else:
            await self._send_whole(answer)

    async def _ask_several(
        self, chat: ChatRequest, decision: RoutingDecision, chosen: Chosen
    ) -> StreamedAnswer | WholeAnswer | None:
        """The answer that a strategy settles on; None where nobody gave one, so that one expert serves."""
        endpoint, outcome = self._endpoint, self._outcome
        run = endpoint.several(self._asked, chat, decision, chosen)
        try:
            return await run.answer(self._wait_on_stream)
        finally:
            outcome.strategy = run.trace()
            outcome.spent = endpoint.limits.spent_on(self._asked, outcome.strategy, chosen.kind.judging)
            outcome.usage = Usage.total([call.usage for call in outcome.strategy.calls])

    async def _wait_on_stream(self) -> None:
        """Begins the client's stream with a comment. Who will answer is not known yet, so no header names an expert."""
        headers = {"content-type": EVENT_STREAM, **STREAM_HEADERS, **response_headers(self._asked, self._outcome)}
        headers.pop("x-coe-expert", None)
        await self._begin(headers)
        self._has_started = self._is_waiting = True
        await self._send({"type": "http.response.body", "body": b": waiting\n\n", "more_body": True})

    async def _begin(self, headers: Mapping[str, str]) -> None:
        if not self._is_waiting:
            await send_head(self._send, 200, headers)

    async def _send_whole(self, answer: WholeAnswer) -> None:
        outcome, facts = self._outcome, answer.facts
        outcome.usage, outcome.finish_reason = facts.usage, facts.finish_reason
        self._note_model(answer.expert, facts.model)
        outcome.ttft_ms = self._asked.elapsed_ms()
        if self._keeps_text:
            self._answer_text = await read_off_loop(answer_text, answer.body)
        self._end(facts.error_code)
        body = answer.body
        if self._telling is not None:
            body = await read_off_loop(self._telling.whole, body)
        await self._row.commit(outcome)
        self._has_started = True
        body = body if outcome.sources is None else outcome.sources.in_body(body)
        await send_body(self._send, 200, body, response_headers(self._asked, outcome), answer.content_type)

    async def _relay(self, answer: StreamedAnswer, chat: ChatRequest) -> None:
        """Passes a stream on and ends it once its row is safe.

        Raises:
            BackendError: the stream was cut.
            StoreError: its row could not be made safe; the client has not seen the end.
        """
        endpoint, outcome = self._endpoint, self._outcome
        telling = self._telling
        reader = self._reader = StreamReader(
            MAX_JUDGED_CHARS if self._keeps_text else 0,
            as_chat=chat.native.as_chat if answer.is_native and chat.native is not None else None,
            on_event=None if telling is None else telling.read,
        )
        end = HeldEnd(self._surface.end_mark) if telling is None and endpoint.log.sink.is_durable else None
        self._has_started, outcome.status = True, 200
        try:
            await self._pass_on(answer, reader, end)
        except BaseException as error:
            endpoint.experts.ended(answer, error)
            if not (isinstance(error, BackendError) and reader.error_code):  # it has told why it ends
                raise
        else:
            endpoint.experts.ended(answer)
        finally:
            outcome.usage, outcome.finish_reason = reader.usage(chat.facts.prompt_tokens), reader.finish_reason
            self._note_model(answer.expert, reader.model)
            self._answer_text = reader.text if self._keeps_text else None
            if reader.is_done:
                endpoint.tails.read(answer.chunks)
            else:
                await answer.chunks.aclose()
        self._end("broken_stream" if reader.is_broken and not reader.error_code else reader.error_code)
        await self._row.commit(outcome)
        last = b"" if end is None else end.held
        await self._send({"type": "http.response.body", "body": last if telling is None else telling.end()})

    async def _pass_on(self, answer: StreamedAnswer, reader: StreamReader, end: HeldEnd | None) -> None:
        """Sends each piece as it comes, except the end where that is held; reads along once a piece is on its
        way. An answer that is told on another surface has to be read first."""
        outcome, send, telling = self._outcome, self._send, self._telling
        headers = {"content-type": answer.content_type, **STREAM_HEADERS, **response_headers(self._asked, outcome)}
        await self._begin(headers)
        has_calls = self._asked.chat.facts.has_tools and telling is None and not answer.is_native
        edited = CallEvents().edited if has_calls else None
        events = EditedEvents(answer.hides_usage, edited) if answer.hides_usage or edited is not None else None
        chunk = answer.first
        while chunk:
            piece = chunk if events is None else events.pass_on(chunk)
            if telling is not None:
                reader.feed(chunk)
                piece = telling.told()
            elif end is not None:
                piece = end.pass_on(piece)
            elif self._surface.end_mark.is_in(piece):
                self._row.take_number()
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if outcome.ttft_ms is None:
                outcome.ttft_ms = self._asked.elapsed_ms()
            if telling is None:
                reader.feed(chunk)
            if reader.is_done:
                break  # whatever an expert does after its end mark, the answer is complete
            chunk = await anext(answer.chunks, b"")
        reader.close()
        if not (reader.is_complete or reader.error_code):
            raise BackendError("the expert's answer was cut off", status=502)
        if telling is not None and reader.is_broken and not reader.error_code:
            raise BackendError("the expert's stream is not one of chat completions", status=502)
        if events is not None and telling is None and (rest := events.rest()):
            self._row.take_number()
            piece = rest if end is None else end.pass_on(rest)
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    def _note_model(self, expert: str, model: object) -> None:
        """Notes the model that an answer names, if it was not kept from before."""
        decided, served = self._outcome.decided, self._endpoint.log.served
        if isinstance(model, str) and (decided is None or decided.slot is None or decided.slot.answer is None):
            self._outcome.served_model = name = model[:MAX_MODEL_CHARS] or None
            if name and name != served.now[expert]:
                served.heard(expert, name)

    def _end(self, error_code: str | None) -> None:
        """Notes the end of an answer, which may hold an error of the expert's."""
        state = TerminalState.ANSWERED if error_code is None else TerminalState.UPSTREAM_ERROR
        self._outcome.end(state, 200, error_code)

    async def _fail(self, failure: BaseException) -> None:
        """Ends the exchange with an error: as an answer, or as the last event of a stream that has begun.

        A stream that was cut inside an event is left without an end: the connection breaks, which no client takes for
        a complete answer.
        """
        outcome, request_id = self._outcome, self._asked.request_id
        error = api_error(failure, outcome.expert, request_id)
        self._endpoint.log.metrics.failed(error)
        outcome.is_admitted &= error.is_logged
        outcome.expert = error.expert or outcome.expert
        if outcome.decided is None:
            state = TerminalState.REJECTED
        elif (error.status, error.code) == (ABSTAINED_STATUS, ABSTAINED):
            state = TerminalState.ABSTAINED
        elif error.status == 504:
            state = TerminalState.TIMED_OUT
        else:
            state = TerminalState.UPSTREAM_ERROR
        outcome.end(state, 200 if self._has_started else error.status, error.logged)
        try:
            await self._row.commit(outcome)
        except StoreError as unsafe:
            error = api_error(unsafe)
        if not self._has_started:
            self._has_started = True
            headers = response_headers(self._asked, outcome) | error.headers
            await send_body(self._send, error.status, self._surface.error(error, request_id), headers)
        elif self._telling is not None:
            await self._send({"type": "http.response.body", "body": self._telling.fail(error)})
        elif self._is_waiting if self._reader is None else self._reader.is_at_boundary:
            await self._send({"type": "http.response.body", "body": self._surface.error_event(error, request_id)})


def decoded(raw: bytes, surface: Surface, bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
    """The request of a body. Raises ApiError 400 naming the field, its value and what is allowed."""
    return surface.request(json_object(decode_json(raw)), bounds, headers)
