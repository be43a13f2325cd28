"""Bodies of OTLP over HTTP: read as JSON whether they are JSON or Protocol Buffers, gzipped or not."""

from __future__ import annotations

import zlib
from base64 import b64decode
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from coe.base.extras import require_installed
from coe.base.json_text import to_json
from coe.gateway.admission import Admission
from coe.gateway.asgi import Receive, read_body, read_off_loop, too_large
from coe.gateway.http_errors import invalid

PROTOBUF = "application/x-protobuf"


class LogRecord(NamedTuple):
    """An event on a span, whose ids are hexadecimal, with its attributes."""

    event: str
    trace_id: str
    span_id: str
    attributes: Mapping[str, object]


async def read_logs(headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, admission: Admission) -> bytes:
    """The JSON of log records that a collector sends.

    Raises:
        ApiError: as `read_body`, or 400 not gzip or not Protocol Buffers.
        MissingExtraError: Protocol Buffers without the extra.
        ClientGoneError: the client left while sending.
    """
    is_packed = headers.get(b"content-encoding") == b"gzip"
    plain = {name: value for name, value in headers.items() if not (is_packed and name == b"content-encoding")}
    raw = await read_body(plain, receive, max_bytes, admission)
    if is_packed:
        raw = await read_off_loop(partial(unpacked, max_bytes=max_bytes), raw)
    return await read_off_loop(json_of, raw) if is_protobuf(headers) else raw


def is_protobuf(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type", b"").startswith(PROTOBUF.encode())


def unpacked(raw: bytes, max_bytes: int) -> bytes:
    """The bytes that were packed. Raises ApiError: 400 it is not gzip, or not whole, 413 there is too much in it."""
    reader = zlib.decompressobj(wbits=31)
    try:
        found = reader.decompress(raw, max_bytes + 1)
    except zlib.error as error:
        raise invalid("the body is not gzip, as its content-encoding says") from error
    if len(found) > max_bytes:
        raise too_large(max_bytes)
    if not reader.eof:
        raise invalid("the body is gzip without its end")
    return found


def json_of(raw: bytes) -> bytes:
    """An ExportLogsServiceRequest as JSON. Raises ApiError, MissingExtraError."""
    require_installed(PROTOBUF, "google", "opentelemetry", "opentelemetry.proto")
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    try:
        return to_json(MessageToDict(ExportLogsServiceRequest.FromString(raw)))
    except DecodeError as error:
        raise invalid("the body is not an ExportLogsServiceRequest") from error


def log_records(values: object) -> list[LogRecord]:
    """The records of a decoded body. Raises ApiError."""
    try:
        return [
            LogRecord(
                str(record.get("eventName", "")),
                id_of(record.get("traceId", "")),
                id_of(record.get("spanId", "")),
                {each["key"]: value_of(each["value"]) for each in record.get("attributes", ())},
            )
            for resource in values.get("resourceLogs", ())  # type: ignore[attr-defined]
            for scope in resource.get("scopeLogs", ())
            for record in scope.get("logRecords", ())
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise invalid("the body is not an ExportLogsServiceRequest") from error


def id_of(text: str) -> str:
    """The hexadecimal id; what was Protocol Buffers has it in base64, whose length is another."""
    return text.lower() if len(text) in (0, 16, 32) else b64decode(text).hex()


def value_of(value: Mapping[str, Any]) -> object:
    """JSON has whole numbers of OTLP as texts."""
    return int(value["intValue"]) if "intValue" in value else value.get("doubleValue", value.get("stringValue"))


def answer_of(rejected: int, problem: str, *, as_protobuf: bool) -> bytes:
    """OTLP's answer, which says how many records were not taken and why."""
    if not as_protobuf:
        found = {"rejectedLogRecords": str(rejected), "errorMessage": problem}
        return to_json({"partialSuccess": found} if rejected else {})
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs

    partial_success = logs.ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=problem)
    found = logs.ExportLogsServiceResponse(partial_success=partial_success if rejected else None)
    return bytes(found.SerializeToString())
