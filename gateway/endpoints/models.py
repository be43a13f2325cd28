"""GET /v1/models: routing, its policies, and the experts by name."""

from __future__ import annotations

from base.errors import allowed_values
from gateway.body_fields import shorten
from gateway.endpoints.access import Config, api_router
from gateway.http_errors import ApiError
from gateway.schemas import ModelCard, ModelList
from gateway.wire import alias_of, model_names
from router.config import CoeConfig
from router.section import AUTO

api = api_router()


@api.get("/v1/models")
def list_models(config: Config) -> ModelList:
    """Every name that `model` may have."""
    return ModelList(data=tuple(cards(config)))


@api.get("/v1/models/{name}")
def show_model(name: str, config: Config) -> ModelCard:
    """One name. 404 when there is no such model."""
    for card in cards(config):
        if card.id == name:
            return card
    if alias_of(name, config.aliases) is not None:
        return ModelCard(id=name, owned_by="coe-alias")
    known = model_names(config.experts, config.policies)
    raise ApiError(
        f"the model {shorten(name)} does not exist{allowed_values(name[:80], known)}",
        status=404,
        code="model_not_found",
        param="model",
    )


def cards(config: CoeConfig) -> list[ModelCard]:
    return [
        ModelCard(id=AUTO, owned_by="coe"),
        *(ModelCard(id=f"{AUTO}:{name}", owned_by="coe-policy") for name in config.policies),
        *(ModelCard(id=name, owned_by=expert.engine.value) for name, expert in config.experts.items()),
        *(ModelCard(id=alias, owned_by="coe-alias") for alias in config.aliases if not alias.endswith("*")),
    ]
