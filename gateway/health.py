"""GET /healthz: the process runs. GET /readyz: it can serve. GET /metrics: numbers for Prometheus.

Answered without FastAPI: beside chats most gateways are asked for nothing else, and these never load it.
"""

from __future__ import annotations

import asyncio
from typing import Literal, NamedTuple

from gateway.auth import require_admin
from gateway.keys.grants import Caller
from gateway.parts import Parts
from router.types import Record

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health(Record):
    """`missing` says what keeps the gateway from serving, `warnings` which experts are disabled and why, and why the
    configuration in force is not served here."""

    status: Literal["ok", "not_ready"]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    router_version: str | None = None
    experts_alive: tuple[str, ...] = ()


class Reply(NamedTuple):
    """An answer's status, body and type."""

    status: int
    body: bytes
    content_type: str = "application/json"


async def healthz(parts: Parts, caller: Caller) -> Reply:
    """Always ok: when the process cannot answer, nothing comes."""
    return Reply(200, Health(status="ok").model_dump_json(exclude_defaults=True).encode())


async def readyz(parts: Parts, caller: Caller) -> Reply:
    """503 until a router is loaded and an expert answers, and again while stopping."""
    pool, router, live = parts.pool, parts.live.current, parts.live_config
    is_answered = await pool.is_answering()
    missing = parts.readiness.missing(is_answered=is_answered)
    health = Health(
        status="not_ready" if missing else "ok",
        missing=tuple(missing),
        warnings=pool.disabled if live is None or live.problem is None else (*pool.disabled, live.problem),
        router_version=router.version if router else None,
        experts_alive=tuple(sorted(pool.alive)) if is_answered else (),
    )
    return Reply(503 if missing else 200, health.model_dump_json().encode())


async def metrics(parts: Parts, caller: Caller) -> Reply:
    """All metrics of every process of this gateway, in the text format; 403 for a team's key without admin scope."""
    require_admin(caller)
    own = await asyncio.to_thread(parts.metrics.text)
    return Reply(200, await parts.siblings.metrics(own), METRICS_TYPE)


HEALTH = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
