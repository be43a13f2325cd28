"""An expert's answer as the parts that newer APIs are made of: reasoning, text, calls of tools, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from coe.base.errors import BackendError
from coe.gateway.chat.event_edits import Calls, is_json, text_of

REASONING, TEXT, REFUSAL, CALL = "reasoning", "text", "refusal", "call"


@dataclass(slots=True, eq=False)
class Part:
    """A part of the answer so far. `number` is its place in the answer, `id` and `name` are those of a call."""

    kind: str
    number: int
    id: str = ""
    name: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """A part begins, gets longer by `text`, or is complete."""

    what: Literal["open", "add", "close"]
    part: Part
    text: str = ""


@dataclass(slots=True)
class Turn:
    """The parts of a chat completion so far. `usage` is the expert's own object."""

    parts: list[Part] = field(default_factory=list)
    model: str = ""
    finish_reason: str | None = None
    stop: str | None = None  # the stop sequence that ended it, where the engine says which
    usage: dict[str, Any] = field(default_factory=dict)
    is_open: bool = False
    _calls: Calls = field(default_factory=Calls)
    _part_of: dict[int, Part] = field(default_factory=dict)  # by the number of a call
    _waiting: list[Part] = field(default_factory=list)  # calls that are not opened yet

    def read(self, event: Mapping[str, Any]) -> Iterator[Step]:
        """The steps of an event of a stream, or of a whole answer.

        Raises:
            BackendError: a call of a tool continues after text that followed it.
        """
        self.model = text_of(event, "model") or self.model
        usage = event.get("usage")
        self.usage = usage if isinstance(usage, dict) else self.usage
        for choice in (event.get("choices") or ())[:1]:
            message = choice.get("delta") or choice.get("message") or {}
            is_whole = "message" in choice
            for kind, text in texts_of(message):
                yield from self._more(kind, text)
            for place, piece in enumerate(message.get("tool_calls") or ()):
                yield from self._call({**piece, "index": place} if is_whole else piece, place)
            self.finish_reason = text_of(choice, "finish_reason") or self.finish_reason
            yield from self._open_waiting(until_end=self.finish_reason is not None or is_whole)
            self.stop = text_of(choice, "stop_reason") or self.stop

    def close(self) -> Iterator[Step]:
        """The steps that complete the last parts."""
        yield from self._open_waiting(until_end=True)
        yield from self._close()

    def _close(self) -> Iterator[Step]:
        if self.is_open:
            self.is_open = False
            yield Step("close", self.parts[-1])

    def _more(self, kind: str, text: str) -> Iterator[Step]:
        yield from self._open_waiting(until_end=True)
        if not (self.is_open and self.parts[-1].kind == kind):
            yield from self._open(Part(kind, len(self.parts)))
        yield from self._add(text)

    def _call(self, piece: Mapping[str, Any], place: int) -> Iterator[Step]:
        call, _, arguments = self._calls.piece(piece, place)
        part = self._part_of.get(call.number)
        if part is None:
            part = self._part_of[call.number] = Part(CALL, 0)
            self._waiting.append(part)
        if part in self._waiting:
            part.id, part.name, part.text = call.id, call.name, part.text + arguments
            yield from self._open_waiting()
        elif self.is_open and self.parts[-1] is part:
            yield from self._add(arguments)
            yield from self._open_waiting()
        elif arguments:
            raise BackendError("a call of a tool continues after other parts", status=502)

    def _open_waiting(self, *, until_end: bool = False) -> Iterator[Step]:
        """Opens calls whose turn it is: clients of the newer APIs get one after another, by name, where the expert may
        begin several and name them later."""
        while self._waiting:
            part = self._waiting[0]
            is_free = not (self.is_open and self.parts[-1].kind == CALL) or is_json(self.parts[-1].text)
            if not (until_end or (part.name and is_free)):
                return
            del self._waiting[0]
            part.number, text, part.text = len(self.parts), part.text, ""
            part.id = part.id or f"call_{part.number}"
            yield from self._open(part)
            yield from self._add(text)

    def _open(self, part: Part) -> Iterator[Step]:
        yield from self._close()
        self.parts.append(part)
        self.is_open = True
        yield Step("open", part)

    def _add(self, text: str) -> Iterator[Step]:
        if text:
            self.parts[-1].text += text
            yield Step("add", self.parts[-1], text)


def texts_of(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a message, or of a piece of one, with their kinds. Engines have two names for reasoning; some use
    both."""
    yield from texts_in(message.get("reasoning_content") or message.get("reasoning"), REASONING)
    yield from texts_in(message.get("content"), TEXT)
    yield from texts_in(message.get("refusal"), REFUSAL)


def texts_in(value: object, kind: str) -> Iterator[tuple[str, str]]:
    """The texts of a field. Mistral's content may be a list of parts, of which those of reasoning hold parts again."""
    if isinstance(value, str) and value:
        yield kind, value
    elif isinstance(value, list):
        for part in value:
            named = part.get("type")
            yield from texts_in(part.get(named), REASONING if named == "thinking" else kind)
