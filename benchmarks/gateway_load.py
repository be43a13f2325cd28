"""The two ends of a measured gateway, with no more than Python's own library: an engine that answers at once or at a
pace, and clients that keep so many chats in flight.

    python -m benchmarks.gateway_load engine PORT
    python -m benchmarks.gateway_load drive '{"load": 0, "texts": "texts.json", "port": 80, "model": "auto", ...}'
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PATH = "/v1/chat/completions"
FRAMES_AT_ONCE = 16
PACED_FRAMES = 100
PACE_S = 0.01
ANSWER_TOKENS = 32
MESSAGE = {"role": "assistant", "content": "w" * 128}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 32, "total_tokens": 62},
    }
).encode()
A_FRAME = re.compile(rb'"content": ?"w')
LONGEST_MARK = 12
END_OF_CHUNKS = b"0\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """One kind of traffic: requests at once, turns of the chat before the last ask.

    Args:
        chars: of the last ask; 0: one prompt as it is.
        frames: of a streamed answer; 0 asks for the whole answer at once.
    """

    name: str
    concurrency: int
    chars: int = 0
    turns: int = 0
    frames: int = 0


ONE, MANY, LONGER, CHAT, LARGE, STREAM, PACED = LOADS = (
    Load("one prompt at a time", 1),
    Load("16 prompts at once", 16),
    Load("4,000 characters, 16 at once", 16, 4_000),
    Load("chat of 8 turns, 16 at once", 16, turns=8),
    Load("131,000 characters, one at a time", 1, 131_000),
    Load("streamed, one at a time", 1, frames=FRAMES_AT_ONCE),
    Load(f"16 streams of {PACED_FRAMES} frames, one every 10 ms", 16, frames=PACED_FRAMES),
)


class Engine(asyncio.Protocol):
    """Answers every chat with the same words: as a whole, streamed at once, or streamed at a pace."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (head := self.buffer.find(b"\r\n\r\n")) >= 0:
            end = head + 4 + content_length(self.buffer[:head])
            if len(self.buffer) < end:
                return
            body, self.buffer = self.buffer[head + 4 : end], self.buffer[end:]
            self.answer(body)

    def answer(self, body: bytes) -> None:
        if b'"stream"' not in body or not (asked := json.loads(body)).get("stream"):
            self.transport.write(head_of(f"content-length: {len(ANSWER)}", "application/json") + ANSWER)
            return
        self.transport.write(head_of("transfer-encoding: chunked", "text/event-stream") + frame())
        if asked["max_tokens"] == PACED_FRAMES:
            self.pace(PACED_FRAMES - 1, asyncio.get_running_loop().time() + PACE_S)
        else:
            self.transport.write(frame() * (FRAMES_AT_ONCE - 1) + last_frames())

    def pace(self, left: int, at: float) -> None:
        """Sends a frame at each of the times `at`, `at` + PACE_S ..., however late the one before was."""

        def send() -> None:
            self.transport.write(frame() if left else last_frames())
            if left:
                self.pace(left - 1, at + PACE_S)

        asyncio.get_running_loop().call_at(at, send)


def frame(delta: str = '{"content":"w"}', reason: str = "null") -> bytes:
    event = (
        '{"id":"1","object":"chat.completion.chunk","created":1,"model":"mock",'
        f'"choices":[{{"index":0,"delta":{delta},"finish_reason":{reason}}}]}}'
    )
    return chunk(f"data: {event}\n\n")


def last_frames() -> bytes:
    return frame("{}", '"stop"') + chunk("data: [DONE]\n\n") + END_OF_CHUNKS


def chunk(text: str) -> bytes:
    return f"{len(text):x}\r\n{text}\r\n".encode()


def head_of(length: str, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{length}\r\n\r\n".encode()


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def run_engine(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


def requests_of(load: Load, model: str, key: str, seed: int, texts: Sequence[str]) -> Callable[[], bytes]:
    """Makes requests of prompts one after the other, from a place that depends on the seed."""
    prompts = itertools.islice(itertools.cycle(texts), seed % len(texts), None)

    def make() -> bytes:
        asked = [*itertools.islice(prompts, load.turns), text_of(prompts, load.chars)]
        messages = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(asked)]
        length = {"max_tokens": load.frames or ANSWER_TOKENS, **({"stream": True} if load.frames else {})}
        body = json.dumps({"model": model, "messages": messages, **length}).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    return make


def text_of(prompts: Iterator[str], chars: int) -> str:
    """A prompt, or as many in a row as have so many characters."""
    text = next(prompts)
    while len(text) < chars:
        text += f"\n{next(prompts)}"
    return text[: chars or None]


class Client:
    """One connection, and what it measured: latencies and times to the first frame in ms, gaps between frames in ms."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.latencies, self.firsts, self.gaps = list[float](), list[float](), list[float]()
        self.frames = 0

    async def ask(self, request: bytes, is_stream: bool) -> None:
        start = time.perf_counter()
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head.splitlines()[0].decode()} {(await self._reader.read(300))!r}")
        if is_stream:
            await self._read_stream(start)
        else:
            await self._reader.readexactly(content_length(head))
        self.latencies.append(1e3 * (time.perf_counter() - start))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def _read_stream(self, start: float) -> None:
        rest, before, end = b"", 0.0, b""
        while not end.endswith(END_OF_CHUNKS):
            piece = await self._reader.read(1 << 16)
            if not piece:
                raise SystemExit(f"a stream broke after {self.frames} frames")
            now, rest, end = time.perf_counter(), rest + piece, (end + piece)[-len(END_OF_CHUNKS) :]
            found = [match.end() for match in A_FRAME.finditer(rest)]
            if found:
                self.frames += len(found)
                (self.gaps if before else self.firsts).append(1e3 * (now - (before or start)))
                before = now
            rest = rest[max(found[-1] if found else 0, len(rest) - LONGEST_MARK) :]


async def drive(
    port: int, model: str, key: str, load: Load, seconds: float, seed: int, texts: Sequence[str]
) -> dict[str, object]:
    """Keeps the load's number of requests in flight for some seconds, and makes each at least once; a stream that began
    is read to its end."""
    make = requests_of(load, model, key, seed, texts)
    clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(load.concurrency)]
    begin = time.perf_counter()

    async def work(client: Client) -> None:
        while not client.latencies or time.perf_counter() < begin + seconds:
            await client.ask(make(), is_stream=load.frames > 0)

    await asyncio.gather(*map(work, clients))
    elapsed_s = time.perf_counter() - begin
    for client in clients:
        await client.close()
    joined = {name: [value for c in clients for value in getattr(c, name)] for name in ("latencies", "firsts", "gaps")}
    frames = sum(client.frames for client in clients)
    return {**joined, "elapsed_s": elapsed_s, "frames": frames, "expected": load.frames * len(joined["latencies"])}


def main() -> None:
    role, value = sys.argv[1:]
    if role == "engine":
        asyncio.run(run_engine(int(value)))
    else:
        asked = json.loads(value)
        load, texts = LOADS[asked.pop("load")], json.loads(Path(asked.pop("texts")).read_bytes())
        print(json.dumps(asyncio.run(drive(load=load, texts=texts, **asked))))


if __name__ == "__main__":
    main()
