"""Changes of the events of a stream that is passed on: calls of tools as OpenAI's clients add them up, and without the
usage that only the gateway asked for.

Engines and providers differ: Gemini and Ollama before 0.5 number no call or each 0, some without an id, old vLLM sends
another id with each piece, others send id and name again, the name after the id, or arguments as an object.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from coe.base.json_text import JsonError, to_json
from coe.fleet.calls.backend import MAX_EVENT_BYTES, reply_json

EVENT_END = re.compile(rb"(?:\r?\n){2}")
EVENT = re.compile(rb".*?(?:\r?\n){2}|.+", re.DOTALL)
USAGE = re.compile(rb'"usage"')
CALLS = re.compile(rb'"tool_calls"\s*:\s*\[\s*\{')  # some engines have null or an empty list in each event


@dataclass(slots=True)
class Call:
    """A call as far as it was told; `number` counts from 0."""

    number: int
    id: str = ""
    name: str = ""


class Calls:
    """The calls of one choice of an answer."""

    def __init__(self) -> None:
        self._all: list[Call] = []
        self._at: dict[object, Call] = {}  # the last one of an index

    def piece(self, piece: Mapping[str, Any], place: int) -> tuple[Call, Call, str]:
        """The call that a piece belongs to, as it is now and was before, and what it adds to the arguments.

        Args:
            place: of the piece among those of its event, which stands for an index that is missing.
        """
        function = piece.get("function") or {}
        name, given = text_of(function, "name") or "", text_of(piece, "id") or ""
        index = piece.get("index")
        at = place if index is None else index
        call = self._at.get(at)
        if given and (index is None or (call is not None and call.id != given)):  # an index of several calls
            call = next((each for each in self._all if each.id == given), call)
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else to_json(arguments).decode()
        is_known = call is not None and (call.id or call.name)
        if call is None or (name and is_known and (given != call.id if given else not call.id and is_json(arguments))):
            call = Call(len(self._all))
            self._all.append(call)
        self._at[at] = call
        before = Call(call.number, call.id, call.name)
        call.id, call.name = call.id or given, call.name or name
        return call, before, arguments


class CallEvents:
    """Events of a streamed chat completion with calls that are numbered from 0, say id and name once, and have text as
    arguments."""

    def __init__(self) -> None:
        self._calls: defaultdict[int, Calls] = defaultdict(Calls)  # by choice

    def edited(self, event: bytes) -> bytes:
        """The event; itself where it is right or not one of calls."""
        try:
            values = reply_json(data_of(event))
            changes = [self._change(choice) for choice in values["choices"]]
        except (JsonError, AttributeError, LookupError, TypeError):
            return event
        return b"data: " + to_json(values) + b"\n\n" if any(changes) else event

    def _change(self, choice: dict[str, Any]) -> bool:
        calls, is_changed = self._calls[choice.get("index", 0)], False
        for place, piece in enumerate((choice.get("delta") or {}).get("tool_calls") or ()):
            call, before, arguments = calls.piece(piece, place)
            function = piece.get("function") or {}
            if piece.get("index") != call.number:
                piece["index"], is_changed = call.number, True
            if before.id and piece.get("id"):
                is_changed = bool(piece.pop("id"))
            if before.name and function.get("name") == before.name:
                is_changed = bool(function.pop("name"))
            if not isinstance(function.get("arguments"), str | None):
                function["arguments"], is_changed = arguments, True
        return is_changed


def is_json(text: str) -> bool:
    """Returns True where arguments are complete."""
    if not text.endswith(("}", "} ", "}\n")):  # most pieces of long ones: parsed each time, they cost their square
        return False
    try:
        reply_json(text.encode())
    except JsonError:
        return False
    return True


def text_of(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return value if isinstance(value, str) else None


class Edit(NamedTuple):
    """A change of each event of some lines, where they hold the pattern."""

    pattern: re.Pattern[bytes]
    change: Callable[[bytes], bytes]


class EventEdits:
    """Changes whole events on their way."""

    def __init__(self, edits: Iterable[Edit]) -> None:
        self._edits = tuple(edits)
        self._open = bytearray()  # an event that is not whole yet

    def changed(self, lines: bytes) -> bytes:
        """The events that are whole with these lines."""
        if self._open or not lines.endswith((b"\n\n", b"\n\r\n")):
            begin = max(len(self._open) - 3, 0)
            self._open += lines
            whole = max((found.end() for found in EVENT_END.finditer(self._open, begin)), default=0)
            if len(self._open) > MAX_EVENT_BYTES:
                whole = len(self._open)
            lines = bytes(self._open[:whole])
            del self._open[:whole]
        for edit in self._edits:
            if edit.pattern.search(lines):
                lines = b"".join(map(edit.change, EVENT.findall(lines)))
        return lines

    def rest(self) -> bytes:
        """The last event, which has no blank line behind it."""
        return bytes(self._open)


def without_usage(event: bytes) -> bytes:
    """Leaves the event out that `stream_options.include_usage` adds: usage, and no choices or null."""
    try:
        values = reply_json(data_of(event))
    except JsonError:
        return event
    is_usage = isinstance(values, dict) and not values.get("choices") and isinstance(values.get("usage"), dict)
    return b"" if is_usage else event


def data_of(event: bytes) -> bytes:
    """The data of an event of a stream."""
    return b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
