"""Lines of a batch: requests as they are read, and results as they are written, in OpenAI's form. Pure."""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from coe.base.errors import shorten
from coe.base.json_text import JsonError, from_json, to_json
from coe.gateway.http.inner_request import Answer

MAX_LINES = 50_000  # OpenAI's limit
MAX_ID_CHARS = 512
LATE = ("batch_expired", "the completion window of the batch ended before this line was answered")


@dataclass(frozen=True)
class Line:
    """A line of the input. `error` is its code and message where it cannot be asked."""

    number: int
    custom_id: str | None
    body: bytes = b""
    error: tuple[str, str] | None = None


def raw_lines(parts: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1; of one that is too long at least `max_bytes + 1` bytes."""
    number, rest = 1, b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from ((number + place, line) for place, line in enumerate(whole) if line.strip())
        number, rest = number + len(whole), rest[: max_bytes + 1]
    if rest.strip():
        yield number, rest


def read_lines(parts: Iterable[bytes], endpoint: str, max_bytes: int) -> Iterator[Line]:
    """The requests of a file. Of lines with the same `custom_id` the first one counts."""
    seen: set[str] = set()
    for number, raw in raw_lines(parts, max_bytes):
        line = read_line(number, raw, endpoint, max_bytes)
        if line.custom_id in seen:
            message = f"'custom_id' {shorten(line.custom_id)} is on an earlier line too; allowed: one line for each"
            line = Line(number, line.custom_id, error=("duplicate_custom_id", message))
        elif line.custom_id is not None:
            seen.add(line.custom_id)
        yield line


def read_line(number: int, raw: bytes, endpoint: str, max_bytes: int) -> Line:
    if len(raw) > max_bytes:
        return Line(number, None, error=("line_too_large", f"line {number} has more than {max_bytes} bytes"))
    try:
        values = from_json(raw.removeprefix(codecs.BOM_UTF8))  # with which files of Windows may begin
    except JsonError as error:
        return Line(number, None, error=("invalid_json_line", f"line {number} {error}"))
    if not isinstance(values, dict):
        return Line(number, None, error=("invalid_json_line", f"line {number} is not a JSON object"))
    custom_id, body = values.get("custom_id"), values.get("body")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID_CHARS:
        message = f"'custom_id' of line {number} is {shorten(custom_id)}; allowed: a text of 1 to {MAX_ID_CHARS} signs"
        return Line(number, None, error=("invalid_value", message))
    for name, wanted in (("method", "POST"), ("url", endpoint)):
        if values.get(name) != wanted:
            message = f"'{name}' of line {number} is {shorten(values.get(name))}; allowed: {wanted}"
            return Line(number, custom_id, error=("invalid_value", message))
    if not isinstance(body, dict) or body.get("stream"):
        message = f"'body' of line {number} must be an object without 'stream'"
        return Line(number, custom_id, error=("invalid_value", message))
    return Line(number, custom_id, to_json(body))


def answer_line(line: Line, answer: Answer) -> bytes:
    """The result of a line that was asked, with the bytes of its answer. `decision_id` is an addition."""
    head = {"id": new_request(), "custom_id": line.custom_id, "error": None}
    ids = {"request_id": answer.headers.get("x-request-id"), "decision_id": answer.headers.get("x-coe-decision-id")}
    response, body = {"status_code": answer.status, **ids}, answer.body.translate(None, b"\r\n")  # JSON needs neither
    return b'%s,"response":%s,"body":%s}}' % (to_json(head)[:-1], to_json(response)[:-1], body or b"null")


def error_line(custom_id: str | None, error: tuple[str, str]) -> bytes:
    """The result of a line that was not asked."""
    said = dict(zip(("code", "message"), error, strict=True))
    return to_json({"id": new_request(), "custom_id": custom_id, "response": None, "error": said})


def new_request() -> str:
    return f"batch_req_{secrets.token_hex(12)}"
