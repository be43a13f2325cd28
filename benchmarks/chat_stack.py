"""Cost of a chat behind a FastAPI route: `python -m benchmarks.chat_stack`, for docs/decisions/57-http.md.

The same gateway (hashing encoder, map, echo, a log in memory) is called in this process as an ASGI application, once as
it is and once behind a route that reads the body and streams the answer. Nothing is validated there, so what is
measured is the route, its request and its answer alone, in processor time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from benchmarks.house import small_gateway
from coe.gateway.http.asgi import Application, Message

PATH = "/v1/chat/completions"
CALLS, ROUNDS = 200, 21


def behind_a_route(gateway: Application) -> FastAPI:
    app = FastAPI()

    @app.post(PATH)
    async def chat(request: Request) -> StreamingResponse:
        body, sent = await request.body(), asyncio.Queue[Any]()

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def pieces() -> AsyncIterator[bytes]:
            while (message := await sent.get()).get("more_body"):
                yield message["body"]
            yield message["body"]
            await answering

        answering = asyncio.create_task(gateway(request.scope, receive, sent.put))
        head = await sent.get()
        headers = {name.decode(): value.decode() for name, value in head["headers"]}
        return StreamingResponse(pieces(), status_code=head["status"], headers=headers)

    return app


async def call(app: Application, number: int, *, is_stream: bool, model: str = "auto") -> int:
    """Sends one chat; returns the status of the answer."""
    asked = [{"role": "user", "content": f"probe {number} of sql"}]
    body = json.dumps({"model": model, "stream": is_stream, "messages": asked}).encode()
    has_left = asyncio.Event()
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    status = 0

    async def receive() -> Message:
        if not waiting:
            await has_left.wait()
            return {"type": "http.disconnect"}
        return waiting.pop()

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    headers = [(b"host", b"127.0.0.1:80"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "query_string": b"", "headers": headers}
    await app({**scope, "client": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send)
    return status


async def cost_us(app: Application, first: int, *, is_stream: bool) -> float:
    begun_s = time.process_time()
    for number in range(first, first + CALLS):
        assert await call(app, number, is_stream=is_stream) == 200
    return (time.process_time() - begun_s) / CALLS * 1e6


async def main() -> None:
    async with small_gateway() as gateway:
        subjects = (gateway.current, behind_a_route(gateway.current))
        for is_stream in (False, True):
            found = np.zeros((ROUNDS, 2))
            for place in range(2 * ROUNDS):
                row, column = divmod(place, 2)
                found[row, column] = await cost_us(subjects[column], CALLS * place, is_stream=is_stream)
            added = found[:, 1] - found[:, 0]
            base, (low, middle, high) = np.median(found[:, 0]), np.quantile(added, (0.05, 0.5, 0.95))
            kind = "streamed" if is_stream else "whole"
            print(f"{kind}: {base:.0f} us; a route adds {middle:.0f} ({low:.0f} to {high:.0f})")


if __name__ == "__main__":
    asyncio.run(main())
