"""GET /v1/models: routing, its policies, and the experts by name."""

from __future__ import annotations

from typing import Literal

from gateway.chat_request import alias_of, model_names, no_model
from gateway.endpoints.access import CallerOf, Config, api_router
from router.config import CoeConfig
from router.section import AUTO
from router.types import Record

api = api_router()


class ModelCard(Record):
    """One name that `model` may have. `owned_by` says its kind: `coe`, `coe-policy`, `coe-alias` or the engine."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


class ModelList(Record):
    """OpenAI's list of models."""

    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]


@api.get("/v1/models")
@api.get("/v1/models/", include_in_schema=False)  # not the model without a name
def list_models(config: Config, caller: CallerOf) -> ModelList:
    """Every name that `model` may have with the caller's key."""
    return ModelList(data=tuple(card for card in cards(config) if caller.may_ask(config.aliases.get(card.id, card.id))))


@api.get("/v1/models/{name:path}")
def show_model(name: str, config: Config, caller: CallerOf) -> ModelCard:
    """Shows one name. 404 when there is no such model for the caller."""
    for card in cards(config):
        if card.id == name and caller.may_ask(config.aliases.get(name, name)):
            return card
    alias = alias_of(name, config.aliases)
    if alias is not None and caller.may_ask(config.aliases[alias]):
        return ModelCard(id=name, owned_by="coe-alias")
    known = [model for model in model_names(config.experts, config.policies) if caller.may_ask(model)]
    raise no_model(name, known)


def cards(config: CoeConfig) -> list[ModelCard]:
    return [
        ModelCard(id=AUTO, owned_by="coe"),
        *(ModelCard(id=f"{AUTO}:{name}", owned_by="coe-policy") for name in config.policies),
        *(ModelCard(id=name, owned_by=expert.engine.value) for name, expert in config.experts.items()),
        *(ModelCard(id=alias, owned_by="coe-alias") for alias in config.aliases if not alias.endswith("*")),
    ]
