"""GET /healthz: the process runs. GET /readyz: it can serve. GET /metrics: numbers for Prometheus."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import Response

from gateway.auth import require_admin
from gateway.endpoints.access import CallerOf, LiveConfigOf, OtherProcesses, api_router, part
from gateway.metrics import Metrics
from gateway.readiness import Readiness
from router.types import Record

api = api_router()

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health(Record):
    """`missing` says what keeps the gateway from serving, `warnings` which experts are disabled and why, and why the
    configuration in force is not served here."""

    status: Literal["ok", "not_ready"]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    router_version: str | None = None
    experts_alive: tuple[str, ...] = ()


@api.get("/healthz", response_model_exclude_defaults=True)
def healthz() -> Health:
    """Always ok: when the process cannot answer, nothing comes."""
    return Health(status="ok")


@api.get("/readyz")
async def readyz(response: Response, readiness: Annotated[Readiness, part("readiness")], live: LiveConfigOf) -> Health:
    """503 until a router is loaded and an expert answers, and again while stopping."""
    pool, router = readiness.pool, readiness.live.current
    is_answered = await pool.is_answering()
    missing = readiness.missing(is_answered=is_answered)
    if missing:
        response.status_code = 503
    return Health(
        status="not_ready" if missing else "ok",
        missing=tuple(missing),
        warnings=pool.disabled if live is None or live.problem is None else (*pool.disabled, live.problem),
        router_version=router.version if router else None,
        experts_alive=tuple(sorted(pool.alive)) if is_answered else (),
    )


@api.get("/metrics")
async def metrics(counted: Annotated[Metrics, part("metrics")], siblings: OtherProcesses, caller: CallerOf) -> Response:
    """All metrics of every process of this gateway, in the text format; 403 for a team's key without admin scope."""
    require_admin(caller)
    own = await asyncio.to_thread(counted.text)
    return Response(await siblings.metrics(own), headers={"content-type": METRICS_TYPE})
