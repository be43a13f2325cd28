"""Cost of a chat by the client that asks the expert: `python -m benchmarks.expert_clients`, for
docs/decisions/81-posts-to-experts.md.

One gateway in this process is called as an ASGI application, for two experts by name that are one server in another
process. They differ in the client alone: ours, and aiohttp's session over the same connections, or httpx. Blocks of
chats alternate, and what is measured is processor time of this process: the median of the pairs' ratios, with its
bootstrap interval.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx
import numpy as np

from benchmarks.chat_stack import call
from coe.decision_log.privacy import load_key
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.providers import vllm
from coe.fleet.providers._post import Posts
from coe.gateway.http.asgi import Application
from coe.gateway.lifecycle.serve import Gateway
from coe.gateway.parts import Parts
from coe.gateway.routers.live_router import live_router
from coe.gateway.settings import Settings
from coe.router.config.composition import load_config
from coe.router.types import FloatArray
from tests.gateway.running import MemoryStore
from tests.memory_log import MemoryLog
from tests.training.trained_folder import EXPERTS, make_trained

CALLS, ROUNDS = 200, 21
BODY = b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"yes"},"finish_reason":"stop"}]}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


class SessionPosts(Posts):
    """Asks by aiohttp's session."""

    def __init__(self, session: aiohttp.ClientSession, url: Any, headers: Mapping[str, str], **options: Any) -> None:
        self._session, self._url, self._headers = session, url, headers

    async def send(self, body: bytes, headers: Mapping[str, str], connect: Any, silence_s: float) -> Any:
        timeout = aiohttp.ClientTimeout(sock_connect=connect.sock_connect, sock_read=silence_s)
        given = {**self._headers, **headers}
        return await self._session.post(self._url, data=body, headers=given, timeout=timeout, allow_redirects=False)


class HttpxContent:
    """The body of httpx's answer, as a `StreamReader` gives it."""

    def __init__(self, answer: httpx.Response) -> None:
        self._pieces = answer.aiter_raw()

    def is_eof(self) -> bool:
        return False

    async def read(self, _: int) -> bytes:
        return await anext(self._pieces, b"")


class HttpxPosts(Posts):
    """Asks by httpx."""

    def __init__(self, session: aiohttp.ClientSession, url: Any, headers: Mapping[str, str], **options: Any) -> None:
        self._client, self._url, self._headers = httpx.AsyncClient(trust_env=False), str(url), headers

    async def send(self, body: bytes, headers: Mapping[str, str], connect: Any, silence_s: float) -> Any:
        given = {**self._headers, **headers}
        request = self._client.build_request("POST", self._url, content=body, headers=given, timeout=silence_s)
        answer = await self._client.send(request, stream=True)
        connection = SimpleNamespace(protocol=None)
        return SimpleNamespace(
            status=answer.status_code,
            headers=answer.headers,
            content=HttpxContent(answer),
            connection=connection,
            close=lambda: None,
        )


def serve(port: Any) -> None:
    """Answers each request with the same bytes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@asynccontextmanager
async def gateway_over(port: int) -> AsyncIterator[Gateway]:
    """A gateway with an expert for each client."""
    with tempfile.TemporaryDirectory() as name:
        folder = make_trained(Path(name))
        config, data = load_config(folder / "experts.yaml"), folder / "data"
        live = live_router(Settings(config_path=folder / "experts.yaml", data_dir=data), config)
        await live.refresh()
        url = f"http://127.0.0.1:{port}/v1"
        pool = ExpertPool({each: vllm.build(vllm.Options(url=url, served_model="m")) for each in EXPERTS})
        gateway = Gateway(Parts(config, pool, live, MemoryLog(), MemoryStore(), hash_key=load_key(data), seed=0))
        await gateway.start()
        try:
            yield gateway
        finally:
            await gateway.stop()


async def cost_us(app: Application, expert: str, first: int) -> float:
    begun_s = time.process_time()
    for number in range(first, first + CALLS):
        assert await call(app, number, is_stream=False, model=expert) == 200
    return (time.process_time() - begun_s) / CALLS * 1e6


async def compared(gateway: Gateway, kind: type[Posts]) -> FloatArray:
    """(ROUNDS, 2) us of a chat by our client and by another, in alternating blocks."""
    for expert, each in zip(EXPERTS, (Posts, kind), strict=True):
        vars(vllm)["Posts"] = each
        await cost_us(gateway, expert, 0)
    found = np.zeros((ROUNDS, 2))
    for row in range(ROUNDS):
        for column in (0, 1) if row % 2 else (1, 0):
            found[row, column] = await cost_us(gateway, EXPERTS[column], CALLS * (row + 1))
    return found


async def main() -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    server = multiprocessing.Process(target=serve, args=(sending,), daemon=True)
    server.start()
    port = receiving.recv()
    for name, kind in (("aiohttp's session", SessionPosts), ("httpx", HttpxPosts)):
        async with gateway_over(port) as gateway:
            found = await compared(gateway, kind)
        more = 100 * (found[:, 1] / found[:, 0] - 1)
        drawn = np.median(np.random.default_rng(0).choice(more, (2000, len(more))), axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        ours, theirs = np.median(found, axis=0)
        print(f"{name}: {theirs:.0f} us a chat, ours {ours:.0f}: {np.median(more):+.1f}% [{low:.1f}, {high:.1f}]")
    server.kill()


if __name__ == "__main__":
    asyncio.run(main())
