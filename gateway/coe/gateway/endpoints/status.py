"""Endpoints without FastAPI: health, metrics, and the names that `model` may have.

Most gateways serve nothing else beside chats, and never load FastAPI. `fastapi_app.py` describes these endpoints in
`/openapi.json` with its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from coe.gateway.chat_request import no_model
from coe.gateway.http.auth import require_admin
from coe.gateway.keys.grants import Caller
from coe.gateway.metrics import SCRAPER
from coe.router.capabilities import alias_of
from coe.router.config.composition import CoeConfig
from coe.router.section import AUTO
from coe.router.types import Record

if TYPE_CHECKING:
    from coe.gateway.parts import Parts

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MODELS = "/v1/models"


class Health(Record):
    """`missing` says what keeps the gateway from serving, `warnings` what does not: experts disabled or without quota,
    a log whose decisions wait for Redis, SQL or the disk, and a configuration in force that is not served here."""

    status: Literal["ok", "not_ready"]
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    router_version: str | None = None
    experts_alive: tuple[str, ...] = ()


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
    missing = parts.missing(is_answered=is_answered)
    warnings = [*pool.problems().values(), *([live.problem] if live is not None and live.problem else ())]
    if parts.sink.detour is not None:
        warnings.append(f"the decision log is degraded: {parts.sink.detour}")
    health = Health(
        status="not_ready" if missing else "ok",
        missing=tuple(missing),
        warnings=tuple(warnings),
        router_version=router.version if router else None,
        experts_alive=tuple(sorted(pool.alive)) if is_answered else (),
    )
    return Reply(503 if missing else 200, health.model_dump_json().encode())


async def metrics(parts: Parts, caller: Caller) -> Reply:
    """All metrics, in the text format; 403 for a team's key without admin scope."""
    require_admin(caller)
    text = await asyncio.get_running_loop().run_in_executor(SCRAPER, parts.metrics.text)
    return Reply(200, text, METRICS_TYPE)


async def list_models(parts: Parts, caller: Caller) -> Reply:
    """Every name that `model` may have with the caller's key."""
    return Reply(200, ModelList(data=cards(parts.config, caller)).model_dump_json().encode())


async def show_model(parts: Parts, caller: Caller, name: str) -> Reply:
    """Shows one of these names; 404 for others, and for those that the caller may not ask."""
    config = parts.config
    every = {card.id: card for card in cards(config, caller)}
    found = every.get(name)
    alias = alias_of(name, config.aliases)
    if found is None and alias is not None and any(map(caller.may_ask, config.aliases[alias])):
        found = ModelCard(id=name, owned_by="coe-alias")
    if found is None:
        raise no_model(name, every)
    return Reply(200, found.model_dump_json().encode())


def cards(config: CoeConfig, caller: Caller) -> tuple[ModelCard, ...]:
    every = (
        ModelCard(id=AUTO, owned_by="coe"),
        *(ModelCard(id=f"{AUTO}:{name}", owned_by="coe-policy") for name in config.policies),
        *(ModelCard(id=name, owned_by=expert.engine.value) for name, expert in config.experts.items()),
        *(ModelCard(id=alias, owned_by="coe-alias") for alias in config.aliases if not alias.endswith("*")),
    )
    return tuple(card for card in every if any(map(caller.may_ask, config.aliases.get(card.id, (card.id,)))))


class Plain(NamedTuple):
    """An endpoint of GET. `answer` takes what its path names by name; `model` is of its JSON, None where it is text."""

    answer: Callable[..., Awaitable[Reply]]
    model: type[Record] | None


PLAIN = {
    "/healthz": Plain(healthz, Health),
    "/readyz": Plain(readyz, Health),
    "/metrics": Plain(metrics, None),
    MODELS: Plain(list_models, ModelList),
    f"{MODELS}/{{name:path}}": Plain(show_model, ModelCard),
}


def answer_of(path: str) -> Callable[[Parts, Caller], Awaitable[Any]] | None:
    """The endpoint of a path; None where it is another one's. A slash at the end changes nothing."""
    path = path.removesuffix("/")
    if path.startswith(f"{MODELS}/"):
        return partial(show_model, name=path.removeprefix(f"{MODELS}/"))
    return PLAIN[path].answer if path in PLAIN else None
