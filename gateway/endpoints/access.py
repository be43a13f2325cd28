"""What every endpoint takes from a request."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from gateway.state import GatewayState


def gateway_state(request: Request) -> GatewayState:
    return cast(GatewayState, request.app.state.gateway)


def caller_key_id(request: Request) -> str | None:
    """The caller's key as gateway/app.py found it; None when no keys are set."""
    return cast("str | None", request.scope.get("coe_key_id"))
