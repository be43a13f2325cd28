"""An expert on a raw socket that sends whatever bytes a mode says, however wrong as HTTP, as events or as JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Piece = bytes | None
"""Bytes in a packet of their own; None aborts the connection."""

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
JSON, EVENTS = b"application/json", b"text/event-stream"


class Asked(NamedTuple):
    """A request: the text of its last message, and whether it asks for a stream."""

    text: str
    is_stream: bool

    @property
    def choice(self) -> dict[str, Any]:
        return {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": self.said}}

    @property
    def said(self) -> str:
        return f"answer to {self.text}"

    @property
    def kind(self) -> bytes:
        return EVENTS if self.is_stream else JSON

    @property
    def body(self) -> bytes:
        if not self.is_stream:
            return json.dumps({"object": "chat.completion", "model": "m", "choices": [self.choice]}).encode()
        return event(self.said) + event("", "stop") + b"data: [DONE]\n\n"

    @property
    def answer(self) -> bytes:
        return sized(self.body, self.kind)


STRAY = "the secret of somebody else"


def event(text: str, reason: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
    return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice], **fields})}\n\n".encode()


def sized(body: bytes, kind: bytes = JSON) -> bytes:
    return HEAD % kind + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(*bodies: bytes, kind: bytes = EVENTS, trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)
    return HEAD % kind + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailer + b"\r\n"


def stray(asked: Asked) -> bytes:
    return Asked(STRAY, asked.is_stream).answer


Mode = Callable[[Asked], Sequence[Piece]]


@dataclass
class HostileExpert:
    """`mode` gives the packets of each answer; the connection stays open behind them unless `closes`."""

    mode: Mode = lambda asked: (asked.answer,)
    closes: bool = False
    url: str = ""
    requests: int = 0
    connections: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                asked = json.loads(await reader.readexactly(int(length or 0)) or b"{}")
                text = asked["messages"][-1]["content"] if asked else ""
                self.requests += 1
                for piece in self.mode(Asked(text, bool(asked.get("stream")))):
                    if piece is None:
                        writer.transport.abort()
                        return
                    writer.write(piece)
                    await writer.drain()
                if self.closes:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def send_unasked(self, sent: bytes) -> None:
        """Sends bytes on each open connection, which are in the other's socket when this returns."""
        for writer in self.connections:
            writer.write(sent)


@asynccontextmanager
async def hostile_expert() -> AsyncIterator[HostileExpert]:
    expert = HostileExpert()
    server = await asyncio.start_server(expert.serve, "127.0.0.1", 0, limit=1 << 24)
    expert.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield expert
    finally:
        for writer in expert.connections:
            writer.transport.abort()
        server.close()
        await server.wait_closed()
