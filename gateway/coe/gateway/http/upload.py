"""An upload on its way in: the form is taken apart as it comes, and its file goes to disk, never whole into memory."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from coe.base.whole_files import write_all
from coe.gateway.http.admission import Admission
from coe.gateway.http.asgi import Receive, announced_length, next_piece
from coe.gateway.http_errors import ApiError, invalid, not_now
from coe.router.config.composition import CoeConfig
from coe.router.config.retrieval import MAX_FILE_MB

UPLOAD_TIMEOUT_S = 300.0  # 32 MiB at a megabit a second
BATCH_BYTES = 256 * 1024  # of the body, handed to a thread at a time
MEMORY_BYTES = 4 * BATCH_BYTES  # of one upload: a batch, its pieces, and what the parser makes of them
MAX_PARTS = 32
MAX_FIELD_BYTES = 1024
FILE, PURPOSE = "file", "purpose"
BATCH = "batch"
PURPOSES = ("assistants", BATCH, "user_data")
MAX_BATCH_BYTES = 200 << 20  # OpenAI's limit


def max_file_bytes(purpose: str, config: CoeConfig) -> int:
    """The size that a file for that purpose may have."""
    allowed_mb = MAX_FILE_MB if config.retrieval is None else config.retrieval.max_file_mb
    return MAX_BATCH_BYTES if purpose == BATCH else allowed_mb << 20


@dataclass(frozen=True)
class Upload:
    """A form that has arrived. `content` is at its start, and closed once the request has ended."""

    filename: str
    purpose: str
    content: BinaryIO
    size_bytes: int


@asynccontextmanager
async def received_upload(
    headers: Mapping[bytes, bytes], receive: Receive, max_bytes: int, folder: Path, admission: Admission
) -> AsyncIterator[Upload]:
    """Reads the form of a request into a file without a name in `folder`.

    Raises:
        ApiError: 400 it is not a form with a file, 408 too slow, 413 larger than `max_bytes`, 415 compressed, 429 or
            503 no room, 503 the disk is full.
        ClientGoneError: the client left while sending.
    """
    announced_length(headers, max_bytes)
    boundary = boundary_of(headers)
    admission.take(MEMORY_BYTES)
    with ExitStack() as stack:
        try:
            # Without a buffer: closing would write what a full disk refused, and fail again.
            form = Form(boundary, stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0)))
            async with admission.arrival(UPLOAD_TIMEOUT_S):
                has_more = True
                while has_more:
                    batch, has_more = await next_batch(receive, max_bytes, admission)
                    await asyncio.to_thread(form.feed, batch)
            upload = form.upload()
        except OSError as error:
            raise not_now(f"the file cannot be kept: {error.strerror}", "store_unavailable") from error
        yield upload


async def next_batch(receive: Receive, max_bytes: int, admission: Admission) -> tuple[bytes, bool]:
    """Some pieces of the body at once, and whether more follow."""
    pieces: list[bytes] = []
    size, has_more = 0, True
    while has_more and size < BATCH_BYTES:
        piece, has_more = await next_piece(receive, max_bytes, admission)
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), has_more


def boundary_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The bytes between the parts of the form. Raises ApiError 400."""
    kind, options = parse_options_header(headers.get(b"content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise invalid("an upload is a form: content-type multipart/form-data with a boundary")
    return options[b"boundary"]


class Form:
    """The form of an upload: one file, its purpose, and other fields, which are dropped unless they promise an end."""

    def __init__(self, boundary: bytes, file: BinaryIO) -> None:
        self._file = file
        self._filename: str | None = None
        self._purpose = b""
        self._part = ""
        self._header, self._value, self._disposition = b"", b"", b""
        self._parts, self._size, self._has_ended = 0, 0, False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_header,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._name_part,
                    "on_part_data": self._add_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise malformed_form() from error

    def feed(self, data: bytes) -> None:
        """The next bytes of the body; blocks on the disk. Raises ApiError 400, OSError."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise malformed_form() from error

    def upload(self) -> Upload:
        """The whole form, once all of it was fed. Raises ApiError 400."""
        if not self._has_ended:
            raise malformed_form()
        if self._filename is None:
            raise invalid("'file': required key is missing", FILE)
        if not self._purpose:
            raise invalid("'purpose': required key is missing", PURPOSE)
        if not self._size:
            raise invalid("'file' is empty", FILE)
        self._file.seek(0)
        return Upload(self._filename, text_of(self._purpose), self._file, self._size)

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise invalid(f"the form has more than {MAX_PARTS} fields")
        self._disposition = b""

    def _add_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._part = text_of(options.get(b"name", b""))
        if self._part.startswith("expires_after"):
            raise invalid("'expires_after' is not known here: files stay until they are deleted", "expires_after")
        if self._part != FILE:
            return
        if self._filename is not None:
            raise invalid("'file' is there twice; allowed: one file", FILE)
        self._filename = text_of(options.get(b"filename", b""))

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == FILE:
            self._size += end - start
            write_all(self._file.fileno(), data[start:end])
        elif self._part == PURPOSE:
            self._purpose += data[start:end]
            if len(self._purpose) > MAX_FIELD_BYTES:
                raise invalid(f"'purpose' is longer than {MAX_FIELD_BYTES} bytes", PURPOSE)

    def _end(self) -> None:
        self._has_ended = True


def text_of(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def malformed_form() -> ApiError:
    return invalid("the body is not a complete form of kind multipart/form-data")
