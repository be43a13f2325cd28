"""An aiohttp application that answers on this machine while a block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def app_of(routes: Mapping[str, Handler]) -> web.Application:
    """An application of handlers by `METHOD /path`."""
    app = web.Application(client_max_size=64 << 20)
    for name, handler in routes.items():
        app.router.add_route(*name.split(), handler)
    return app


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """The address without a path. A client that leaves cancels its handler."""
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
