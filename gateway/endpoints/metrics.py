"""GET /metrics for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from gateway.endpoints.access import gateway_state
from gateway.state import GatewayState

api = APIRouter()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@api.get("/metrics")
def metrics(state: Annotated[GatewayState, Depends(gateway_state)]) -> Response:
    """All metrics in the text format."""
    return Response(state.metrics.text(), headers={"content-type": CONTENT_TYPE})
