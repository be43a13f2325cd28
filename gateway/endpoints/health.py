"""GET /healthz: the process runs. GET /readyz: it can serve."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from gateway.endpoints.access import gateway_state
from gateway.schemas import Health
from gateway.state import GatewayState

api = APIRouter()


@api.get("/healthz", response_model_exclude_defaults=True)
def healthz() -> Health:
    """Always ok: when the process cannot answer, nothing comes."""
    return Health(status="ok")


@api.get("/readyz")
async def readyz(response: Response, state: Annotated[GatewayState, Depends(gateway_state)]) -> Health:
    """503 until a router is loaded and an expert answers, and again while stopping."""
    is_answered = await state.pool.is_answering()
    missing = state.missing(is_answered=is_answered)
    if missing:
        response.status_code = 503
    return Health(
        status="not_ready" if missing else "ok",
        missing=tuple(missing),
        router_version=state.live.current.version if state.live.current else None,
        experts_alive=tuple(sorted(state.pool.alive)) if is_answered else (),
    )
