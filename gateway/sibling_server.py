"""The Unix socket on which a process of a gateway answers the others; gateway/siblings.py asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import uvicorn

from gateway.app import STORE_PATHS
from gateway.asgi import Application, Receive, Scope, Send
from gateway.serve import QuietServer
from gateway.siblings import DECISION_PATH, METRICS_PATH, socket_of
from router.types import DecisionRecord

GRACE_S = 1.0


class SiblingServer:
    """Answers the siblings of one process.

    Args:
        metrics: the process's metrics in the text format.
        decision: a decision that it holds in memory, by id.
        app: answers what siblings forward; None where nothing is.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        metrics: Callable[[], bytes],
        decision: Callable[[str], DecisionRecord | None] = lambda decision_id: None,
        app: Application | None = None,
    ) -> None:
        self._metrics, self._decision, self._app = metrics, decision, app
        config = uvicorn.Config(
            self, uds=str(socket_of(folder, name)), ws="none", lifespan="off", log_config=None, access_log=False
        )
        self._server = QuietServer(config, GRACE_S)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(), name="siblings")
        await self._server.has_started.wait()

    async def aclose(self) -> None:
        self._server.must_stop.set()
        if self._serving is not None:
            await self._serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if self._app is not None and path.startswith(STORE_PATHS):
            await self._app(scope, receive, send)
            return
        body: bytes | None = None
        if path == METRICS_PATH:
            body = await asyncio.to_thread(self._metrics)
        elif path.startswith(DECISION_PATH):
            record = await asyncio.to_thread(self._decision, path.removeprefix(DECISION_PATH))
            body = None if record is None else record.model_dump_json(exclude={"embedding"}).encode()
        headers = [(b"content-length", str(len(body or b"")).encode())]
        await send({"type": "http.response.start", "status": 200 if body is not None else 404, "headers": headers})
        await send({"type": "http.response.body", "body": body or b""})
