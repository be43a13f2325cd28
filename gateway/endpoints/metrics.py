"""GET /metrics for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import Response

from gateway.endpoints.access import api_router, part
from gateway.metrics import Metrics

api = api_router()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@api.get("/metrics")
def metrics(counted: Annotated[Metrics, part("metrics")]) -> Response:
    """All metrics in the text format."""
    return Response(counted.text(), headers={"content-type": CONTENT_TYPE})
