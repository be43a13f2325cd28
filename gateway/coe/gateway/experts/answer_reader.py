"""Reads usage, finish reason and errors out of an answer that passes by. Nothing here changes a byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from coe.base.errors import BackendError
from coe.base.json_text import JsonError, from_json, to_json
from coe.fleet.calls.backend import MAX_EVENT_BYTES, ChunkStream, reply_json
from coe.gateway.http_errors import code_of, not_ours
from coe.router.prices.usage import Usage, usage_of

MAX_TAIL_S = 1.0


class StreamReader:
    """Follows the server-sent events of one stream.

    An event's data that is not a JSON object, or is nested too deep, makes the stream `is_broken`; a stream that saw
    neither the end mark nor a finish reason was cut.

    Args:
        keep_chars: how much of the first choice's text to keep in `text`.
        as_chat: what an event says in the terms of a chat completion, where the stream is none.
        on_event: gets each whole event.
    """

    def __init__(
        self,
        keep_chars: int = 0,
        *,
        as_chat: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
        on_event: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._as_chat, self._on_event = as_chat, on_event
        self._room = keep_chars
        self._kept: list[str] = []
        self.is_done = False  # the end mark `[DONE]` came
        self.is_broken = False
        self.finish_reason: str | None = None
        self.model: object = None  # the first that an event names; Azure begins with an event that names none
        self.error_code: str | None = None  # of an error event
        self._reported: dict[str, Any] = {}  # some APIs report the prompt first and the answer later
        self._tokens = 0  # events that carried text; engines send one token each
        self._data: list[bytes] = []  # data lines of the event that is not whole yet
        self._open_bytes = 0  # that came since it began

    @property
    def is_at_boundary(self) -> bool:
        """Returns True when what passed so far ends with a whole event."""
        return not self._data

    @property
    def text(self) -> str:
        """The part of the text that was kept."""
        return "".join(self._kept)

    @property
    def is_complete(self) -> bool:
        return self.is_done or self.finish_reason is not None

    def usage(self, prompt_tokens: int) -> Usage:
        """The expert's report; otherwise counted events and the caller's estimate of the prompt. Before a stream has
        come to its end, a report is of a part: Anthropic's begins with one."""
        said = usage_of(self._reported) if self._reported else Usage(prompt_tokens=prompt_tokens)
        if self._reported and self.is_complete:
            return said
        completion_tokens = max(said.completion_tokens, self._tokens)
        return said.model_copy(update={"completion_tokens": completion_tokens, "is_estimated": True})

    def facts(self, prompt_tokens: int) -> JsonAnswer:
        """What the stream states so far. Args as of `usage`."""
        code = "broken_stream" if self.is_broken and not self.error_code else self.error_code
        return JsonAnswer(self.usage(prompt_tokens), self.finish_reason, code, self.model)

    def feed(self, lines: bytes) -> None:
        """Takes the next whole lines of the stream."""
        for line in lines.removesuffix(b"\n").split(b"\n"):
            if line or self._data:
                self._line(line.rstrip(b"\r"))
        self._open_bytes = self._open_bytes + len(lines) if self._data else 0
        if self._open_bytes > MAX_EVENT_BYTES:
            self.is_broken, self._data = True, []

    def close(self) -> None:
        """The stream ended: what came is an event, though its blank line is missing."""
        self._line(b"")

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            if data:  # some servers show so that they are at work
                self._event(data)
        elif line and not line.startswith((b":", b"event:", b"id:", b"retry:")):
            self.is_broken = True

    def _event(self, data: bytes) -> None:
        if self.is_done:
            return  # the answer is complete, whatever an expert says behind its end
        if data == b"[DONE]":
            self.is_done = True
            return
        try:
            event = from_json(data, has_unique_keys=False)
        except JsonError:
            self.is_broken = True
            return
        if not isinstance(event, dict):
            self.is_broken = True
            return
        self.model = self.model or event.get("model")
        if self._on_event is not None:
            self._on_event(event)
        if self._as_chat is not None:
            event = read_as_chat(event, self._as_chat)
            if event is None:
                self.is_broken = True
                return
            self.is_done = self.is_done or "done" in event
        if "error" in event and event["error"] is not None:
            self.error_code = error_code(event["error"])
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._reported = later(self._reported, usage) if self._reported else usage
        choices = event.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                self._choice(choice)

    def _choice(self, choice: object) -> None:
        if not isinstance(choice, dict):
            self.is_broken = True
            return
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:  # some servers have "" in each event
            self.finish_reason = reason[:64]
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        content = delta.get("content")
        if content or delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls"):
            self._tokens += 1
            if self._room > 0 and isinstance(content, str) and choice.get("index", 0) == 0:
                self._kept.append(content[: self._room])
                self._room -= len(content)


class JsonAnswer(NamedTuple):
    """Facts that an answer states; `error_code` is there when it holds an error in spite of its status, which may
    be all: then it has no choice."""

    usage: Usage
    finish_reason: str | None
    error_code: str | None
    model: object = None
    has_choice: bool = True


def read_answer(body: bytes, as_chat: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None) -> JsonAnswer | None:
    """None when the body is not a chat completion: not a JSON object, or one with neither choices nor an error.

    Args:
        as_chat: what the answer says in the terms of a chat completion, where it is none.
    """
    try:
        values = reply_json(body)
    except JsonError:
        return None
    if not isinstance(values, dict):
        return None
    model = values["model"] if "model" in values else None  # noqa: SIM401  # without a call
    if as_chat is not None and (values := read_as_chat(values, as_chat)) is None:
        return None
    choices, error = values.get("choices"), values.get("error")
    first = choices[0] if isinstance(choices, list) and choices else None
    is_choice = isinstance(first, dict) and (as_chat is not None or isinstance(first.get("message"), dict))
    if not is_choice and error is None:
        return None
    reason = first.get("finish_reason") if is_choice and first is not None else None
    usage = values.get("usage")
    return JsonAnswer(
        usage=usage_of(usage) if isinstance(usage, dict) else Usage(is_estimated=True),
        finish_reason=reason[:64] if isinstance(reason, str) else None,
        error_code=None if error is None else error_code(error),
        model=model,
        has_choice=is_choice,
    )


def read_as_chat(
    values: Mapping[str, Any], as_chat: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any] | None:
    """An event or an answer in the terms of a chat completion; None where its parts are not of the types of its API."""
    try:
        return as_chat(values)
    except (AttributeError, LookupError, TypeError):
        return None


@contextmanager
def chat_completion() -> Iterator[None]:
    """Raises BackendError where what is read inside does not have the form of a chat completion."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BackendError("the expert's answer does not have the form of a chat completion", status=502) from error


def answer_text(body: bytes) -> str | None:
    """The first choice's text of a whole answer; None when it has none."""
    try:
        content = reply_json(body)["choices"][0]["message"]["content"]
        if isinstance(content, list):  # as Mistral's models that reason send it
            content = "".join(part["text"] for part in content if part["type"] == "text")
    except (JsonError, LookupError, TypeError):
        return None
    return content if isinstance(content, str) else None


def answer_calls(body: bytes) -> str | None:
    """The first choice's calls of tools in a whole answer, as JSON; None when it has none."""
    try:
        calls = reply_json(body)["choices"][0]["message"].get("tool_calls")
    except (JsonError, LookupError, TypeError, AttributeError):
        return None
    return to_json(calls).decode() if calls else None


def later(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """A usage object with what a later one adds or replaces. Counts only rise."""

    def risen(old: object, new: object) -> object:
        is_less = isinstance(old, int) and isinstance(new, int) and new < old
        return old if new is None or is_less else new

    return {**before, **{name: risen(before.get(name), value) for name, value in now.items()}}


def error_code(error: object) -> str:
    """The code of an expert's error object."""
    given = (error.get("code"), error.get("type")) if isinstance(error, dict) else ()
    return code_of(*map(not_ours, given))


class StreamTails:
    """Reads tails in the background, so that connections can be used again and no client waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def read(self, chunks: ChunkStream) -> None:
        """Reads to the end, for at most MAX_TAIL_S, and closes."""
        task = asyncio.create_task(read_tail(chunks), name="stream-tail")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def read_tail(chunks: ChunkStream) -> None:
    try:
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(MAX_TAIL_S):
                while await anext(chunks, b""):
                    pass
    finally:
        await chunks.aclose()
