"""An API that clients may speak to the experts of a chat, and the way of an expert's answer to them: passed on as it
came where the expert speaks that API, otherwise told on it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from coe.base.errors import BackendError
from coe.base.json_text import to_json
from coe.fleet.calls.backend import reply_json
from coe.gateway.chat.event_edits import CALLS, USAGE, CallEvents, Edit, EventEdits, without_usage
from coe.gateway.chat_request import ChatRequest, chat_request
from coe.gateway.experts.answer_reader import StreamReader, chat_completion, error_code
from coe.gateway.http.asgi import read_off_loop
from coe.gateway.http_errors import MAX_UPSTREAM_MESSAGE_CHARS, ApiError

if TYPE_CHECKING:
    from coe.gateway.exchange import RequestContext
    from coe.gateway.experts.answer import StreamedAnswer, WholeAnswer
    from coe.router.config.gateway import GatewayConfig

Json = dict[str, Any]
SendPiece = Callable[[bytes], Awaitable[None]]


class EndMark:
    """The line that begins the end of a stream: a field of an event with one of some values."""

    def __init__(self, name: bytes, *values: bytes) -> None:
        self._values = values
        self._line = re.compile(
            rb"^" + name + rb":[ \t]*(?:" + b"|".join(re.escape(value) for value in values) + rb")", re.MULTILINE
        )

    def found_in(self, lines: bytes) -> int | None:
        """The place where that line begins."""
        for value in self._values:
            if value in lines:  # which is quicker to see than where a line begins
                found = self._line.search(lines)
                return None if found is None else found.start()
        return None


class BufferedTerminator:
    """Passes the lines of a stream on, except what begins with the line `data: [DONE]`.

    That waits until its row is safe: a client that has seen it may rely on the log.
    """

    def __init__(self, mark: EndMark) -> None:
        self._mark = mark
        self._held = b""

    def pass_on(self, lines: bytes) -> bytes:
        """Gives what may go to the client now; empty when all of it has to wait."""
        begin = 0 if self._held else self._mark.found_in(lines)
        if begin is None:
            return lines
        self._held += lines[begin:]
        return lines[:begin]

    def rest(self) -> bytes:
        """Gives the end."""
        return self._held


CHAT_END = EndMark(b"data", b"[DONE]")


class Answer(Protocol):
    """One answer, translated for the client. Its events come from those of a chat completion."""

    def read(self, event: Mapping[str, Any]) -> Iterable[Json]:
        """The events that follow from the next one of a streamed chat completion."""
        ...

    def end(self) -> Iterable[Json]:
        """The last events of a stream that came to its end."""
        ...

    def fail(self, error: ApiError) -> Iterable[Json]:
        """The last events of a stream that was cut."""
        ...

    def whole(self, answer: Mapping[str, Any]) -> Json:
        """The answer from a whole chat completion."""
        ...


class Adapter:
    """One API: how its requests are read, and how its answers and errors look. This one is /v1/chat/completions itself;
    the others differ in what they override.

    `end_mark` is the line with which the last event of a stream begins.
    """

    end_mark = CHAT_END

    def request(self, body: Mapping[str, Any], bounds: GatewayConfig, headers: Mapping[bytes, bytes]) -> ChatRequest:
        """The chat request that says the same. Raises ApiError 400 naming a field, its value and what is allowed."""
        return chat_request(body, bounds)

    def delivery(self, answer: StreamedAnswer, sent: ChatRequest, keep_chars: int, context: RequestContext) -> Delivery:
        """The way of a stream to its client.

        Args:
            sent: what the expert answers.
            keep_chars: how much of the answer's text the delivery's reader keeps.
        """
        return PassedOn(self, answer, sent, keep_chars, context.request_id)

    async def body(self, answer: WholeAnswer, sent: ChatRequest, context: RequestContext) -> bytes:
        """A whole answer for its client. Raises as `translated` does."""
        return answer.body

    def error(self, error: ApiError, request_id: str) -> bytes:
        """The body of an answer that is an error."""
        return error.body

    def error_event(self, error: ApiError, request_id: str) -> bytes:
        """The last event of a stream that an expert began on this very API and that was cut."""
        return b"data: " + error.body + b"\n\n"


class TranslatingAdapter(Adapter, ABC):
    """Another API. Experts that speak it got its own requests; the chat completions of others are translated."""

    @abstractmethod
    def answer(self, chat: ChatRequest, decision_id: str, request_id: str) -> Answer:
        """One answer to be translated."""

    def frame(self, event: Json) -> bytes:
        """An event as the bytes of a stream."""
        return b"data: " + to_json(event) + b"\n\n"

    def delivery(self, answer: StreamedAnswer, sent: ChatRequest, keep_chars: int, context: RequestContext) -> Delivery:
        if answer.is_native:
            return super().delivery(answer, sent, keep_chars, context)
        return Translated(self, self.answer(sent, context.decision_id, context.request_id), answer, keep_chars)

    async def body(self, answer: WholeAnswer, sent: ChatRequest, context: RequestContext) -> bytes:
        if answer.is_native:
            return answer.body
        told = self.answer(sent, context.decision_id, context.request_id)
        return await read_off_loop(partial(translated, told), answer.body)


class NamedEvents(TranslatingAdapter):
    """An API whose events come under the name of their type, as in those after chat completions."""

    def frame(self, event: Json) -> bytes:
        return b"event: " + str(event["type"]).encode() + b"\ndata: " + to_json(event) + b"\n\n"


class Delivery(ABC):
    """The way of a streamed answer to its client, read along by `reader`. Its end waits until its row is safe."""

    def __init__(self, answer: StreamedAnswer, reader: StreamReader) -> None:
        self._answer, self.reader = answer, reader

    async def stream(self, send: SendPiece) -> None:
        """Sends all but the end. Raises BackendError: the stream was cut, or is not what it should be."""
        reader, chunk, chunks = self.reader, self._answer.first, self._answer.chunks
        while chunk:
            reader.feed(chunk)
            await send(self._shown(chunk))
            if reader.is_done:
                break  # whatever an expert does after its end mark, the answer is complete
            chunk = await anext(chunks, b"")
        reader.close()
        if not (reader.is_complete or reader.error_code):
            raise BackendError("the expert's answer was cut off", status=502)

    @abstractmethod
    def _shown(self, chunk: bytes) -> bytes:
        """The bytes for the client that follow from a piece, which was read."""

    @abstractmethod
    def end(self) -> bytes:
        """The end, for a client whose row is safe."""

    @abstractmethod
    def fail(self, error: ApiError) -> bytes:
        """The last event of a stream that was cut."""


class PassedOn(Delivery):
    """An answer in the API that its client asked by: its bytes are passed on as they come. Args as of
    `Adapter.delivery`."""

    def __init__(
        self, adapter: Adapter, answer: StreamedAnswer, sent: ChatRequest, keep_chars: int, request_id: str
    ) -> None:
        native = sent.native if answer.is_native else None
        super().__init__(answer, StreamReader(keep_chars, as_chat=None if native is None else native.as_chat))
        self._adapter, self._request_id = adapter, request_id
        edits = [Edit(USAGE, without_usage)] if answer.hides_usage else []
        if sent.facts.has_tools and native is None:
            edits.append(Edit(CALLS, CallEvents().edited))
        self._edits = EventEdits(edits) if edits else None
        self._end = BufferedTerminator(adapter.end_mark)

    def _shown(self, chunk: bytes) -> bytes:
        return self._end.pass_on(chunk if self._edits is None else self._edits.changed(chunk))

    def end(self) -> bytes:
        shown = b"" if self._edits is None else self._end.pass_on(self._edits.rest())
        return shown + self._end.rest()

    def fail(self, error: ApiError) -> bytes:
        """Nothing inside an event: the connection breaks, which no client takes for a complete answer."""
        return self._adapter.error_event(error, self._request_id) if self.reader.is_at_boundary else b""


class Translated(Delivery):
    """A streamed chat completion that is translated for another API. Args as of `PassedOn`, and `told`: the answer."""

    def __init__(self, adapter: TranslatingAdapter, told: Answer, answer: StreamedAnswer, keep_chars: int) -> None:
        self._frames = Frames(adapter, told)
        super().__init__(answer, StreamReader(keep_chars, on_event=self._frames.read))

    async def stream(self, send: SendPiece) -> None:
        await super().stream(send)
        if self.reader.is_broken and not self.reader.error_code:
            raise BackendError("the expert's stream is not one of chat completions", status=502)

    def _shown(self, chunk: bytes) -> bytes:
        return self._frames.take()

    def end(self) -> bytes:
        return self._frames.end()

    def fail(self, error: ApiError) -> bytes:
        return self._frames.fail(error)


class Frames:
    """The bytes of a translated answer; apart from `Translated`, or it and its reader would refer to each other."""

    def __init__(self, adapter: TranslatingAdapter, told: Answer) -> None:
        self._adapter, self._told = adapter, told
        self._frames: list[bytes] = []
        self._is_over = False

    def read(self, event: Mapping[str, Any]) -> None:
        """Takes an event of the expert's. Raises BackendError where it is not one of a chat completion."""
        if self._is_over:
            return
        if event.get("error") is not None:
            self._is_over = True
            self._tell(self._told.fail(stream_error(event["error"])))
            return
        with chat_completion():
            self._tell(self._told.read(event))

    def take(self) -> bytes:
        """Gives the bytes for the client since the last call."""
        taken, self._frames = b"".join(self._frames), []
        return taken

    def end(self) -> bytes:
        if not self._is_over:
            self._tell(self._told.end())
        return self.take()

    def fail(self, error: ApiError) -> bytes:
        if not self._is_over:
            self._tell(self._told.fail(error))
        return self.take()

    def _tell(self, events: Iterable[Json]) -> None:
        self._frames += [self._adapter.frame(event) for event in events]


def translated(told: Answer, body: bytes) -> bytes:
    """A whole chat completion, translated for another API. Raises BackendError; ApiError where an error is beside
    it."""
    values = reply_json(body)
    if values.get("error") is not None:
        raise stream_error(values["error"])
    with chat_completion():
        return to_json(told.whole(values))


def stream_error(error: object) -> ApiError:
    """The error that an expert sent in place of an answer, or of the rest of one."""
    message = error.get("message") if isinstance(error, dict) else error
    return ApiError(str(message)[:MAX_UPSTREAM_MESSAGE_CHARS], status=502, code=error_code(error))
