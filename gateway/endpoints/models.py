"""GET /v1/models: routing, its policies, and the experts by name."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from gateway.body_fields import shorten
from gateway.endpoints.access import gateway_state
from gateway.http_errors import ApiError
from gateway.schemas import ModelCard, ModelList
from gateway.state import GatewayState
from gateway.wire import model_names
from router.config import AUTO
from router.errors import allowed_values

api = APIRouter()


@api.get("/v1/models")
def list_models(state: Annotated[GatewayState, Depends(gateway_state)]) -> ModelList:
    """Every name that `model` may have."""
    return ModelList(data=tuple(cards(state)))


@api.get("/v1/models/{name}")
def show_model(name: str, state: Annotated[GatewayState, Depends(gateway_state)]) -> ModelCard:
    """One name. 404 when there is no such model."""
    for card in cards(state):
        if card.id == name:
            return card
    known = model_names(state.config.experts, state.config.policies)
    raise ApiError(
        f"the model {shorten(name)} does not exist{allowed_values(name[:80], known)}",
        status=404,
        code="model_not_found",
        param="model",
    )


def cards(state: GatewayState) -> list[ModelCard]:
    config = state.config
    return [
        ModelCard(id=AUTO, owned_by="coe"),
        *(ModelCard(id=f"{AUTO}:{name}", owned_by="coe-policy") for name in config.policies),
        *(ModelCard(id=name, owned_by=expert.engine.value) for name, expert in config.experts.items()),
    ]
