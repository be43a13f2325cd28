"""An expert's answer as the parts that newer APIs are made of: reasoning, text, calls of tools, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from base.errors import BackendError
from base.json_text import to_json

REASONING, TEXT, REFUSAL, CALL = "reasoning", "text", "refusal", "call"


@dataclass(slots=True)
class Part:
    """A part of the answer so far. `number` is its place in the answer, `id` and `name` are those of a call."""

    kind: str
    number: int
    id: str = ""
    name: str = ""
    text: str = ""
    call: int = -1  # its index in the chat completion


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

    def read(self, event: Mapping[str, Any]) -> Iterator[Step]:
        """The steps of an event of a stream, or of a whole answer.

        Raises:
            BackendError: a call of a tool continues after the next one has begun.
        """
        self.model = text_of(event, "model") or self.model
        usage = event.get("usage")
        self.usage = usage if isinstance(usage, dict) else self.usage
        for choice in (event.get("choices") or ())[:1]:
            message = choice.get("delta") or choice.get("message") or {}
            is_whole = "message" in choice
            for kind, text in texts_of(message):
                yield from self._more(kind, text)
            for place, call in enumerate(message.get("tool_calls") or ()):
                yield from self._call(call, place if is_whole else call.get("index", place))
            self.finish_reason = text_of(choice, "finish_reason") or self.finish_reason
            self.stop = text_of(choice, "stop_reason") or self.stop

    def close(self) -> Iterator[Step]:
        """The step that completes the last part."""
        if self.is_open:
            self.is_open = False
            yield Step("close", self.parts[-1])

    def count(self, name: str, details: str = "") -> int:
        """A number of the expert's usage, 0 where it gives none."""
        found = self.usage.get(details) if details else self.usage
        value = found.get(name) if isinstance(found, Mapping) else None
        return value if isinstance(value, int) and value > 0 else 0

    def _more(self, kind: str, text: str) -> Iterator[Step]:
        if not (self.is_open and self.parts[-1].kind == kind):
            yield from self._open(Part(kind, len(self.parts)))
        yield from self._add(text)

    def _call(self, call: Mapping[str, Any], index: int) -> Iterator[Step]:
        function = call.get("function") or {}
        name, given = text_of(function, "name"), text_of(call, "id")
        # Ollama before 0.5 and Gemini's endpoint number every call 0; old vLLM sends another id with each piece.
        is_another = bool(name and given) and all(part.id != given for part in self.parts)
        if is_another or not (self.is_open and self.parts[-1].call == index):
            if not is_another and any(part.call == index for part in self.parts):
                raise BackendError("the expert's calls of tools are interleaved", status=502)
            identity = given or f"call_{len(self.parts)}"
            yield from self._open(Part(CALL, len(self.parts), identity, name or "", call=index))
        arguments = function.get("arguments")  # an object of llama.cpp in early 2026, and of MLX
        if not isinstance(arguments, str | None):
            arguments = to_json(arguments).decode()
        yield from self._add(arguments or "")

    def _open(self, part: Part) -> Iterator[Step]:
        yield from self.close()
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


def text_of(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None
