"""The plainest gateway there is, to compare others with: FastAPI on uvicorn, aiohttp as the client; it reads the body's
JSON once and passes the answer on.

    python -m benchmarks.pass_through PORT UPSTREAM
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse


@asynccontextmanager
async def with_client(app: FastAPI) -> AsyncIterator[None]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=512)) as app.state.client:
        yield


def pass_through(upstream: str) -> FastAPI:
    app = FastAPI(lifespan=with_client)
    headers = {"content-type": "application/json"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body, client = await request.body(), request.app.state.client
        if not json.loads(body).get("stream"):
            async with client.post(upstream, data=body, headers=headers) as answer:
                return Response(await answer.read(), answer.status, media_type="application/json")
        answer = await client.post(upstream, data=body, headers=headers)

        async def pieces() -> AsyncIterator[bytes]:
            async with answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return StreamingResponse(pieces(), answer.status, media_type="text/event-stream")

    return app


def main() -> None:
    port, upstream = sys.argv[1:]
    app = pass_through(f"{upstream}/chat/completions")
    uvicorn.run(
        app, host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )


if __name__ == "__main__":
    main()
