"""/v1/admin/config: which configuration is in force, and another one in its place, for keys with admin scope."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends
from pydantic import Field

from base.errors import ConfigError
from base.request_body import Body
from gateway.auth import require_admin
from gateway.changes.history import InForce
from gateway.changes.live_config import LiveConfig
from gateway.endpoints.access import CallerOf, LiveConfigOf, api_router
from gateway.http_errors import ApiError
from gateway.keys.grants import Caller
from router.types import Record

api = api_router("/v1/admin/config")


class ConfigText(Body):
    """A configuration to put in force."""

    experts_yaml: str = Field(min_length=1, description="the text of a whole experts.yaml")


class ConfigPlan(Record):
    """The changes that a configuration would make, one line each."""

    changes: tuple[str, ...]


class ConfigState(Record):
    """The configuration in force. `served` is that of the process that answers, `problem` why it is not `number`. A
    rollback goes back to those in `before`, newest first."""

    number: int
    at: str
    by: str
    before: tuple[int, ...]
    served: int
    problem: str | None


async def changeable(live: LiveConfigOf, caller: CallerOf) -> LiveConfig:
    """Raises ApiError 403, or 503 in a gateway that has one configuration for good."""
    require_admin(caller)
    if live is None:
        raise ApiError("this gateway takes no other configuration", status=503, code="config_unavailable")
    return live


Changeable = Annotated[LiveConfig, Depends(changeable)]


@api.get("")
async def show_config(live: Changeable) -> ConfigState:
    """The configuration in force, and the one that the process asked serves with."""
    with refusals():
        return state_of(live, await asyncio.to_thread(live.history.current))


@api.post("/plan")
async def plan_config(live: Changeable, caller: CallerOf, wanted: ConfigText | None = None) -> ConfigPlan:
    """Shows the changes that `apply` with the same body would make. 400 with every reason why it would refuse."""
    with refusals():
        return ConfigPlan(changes=tuple(await live.plan(text_of(wanted, caller))))


@api.post("/apply")
async def apply_config(live: Changeable, caller: CallerOf, wanted: ConfigText | None = None) -> ConfigState:
    """Puts a configuration in force; without a body, experts.yaml as it is now. 400: nothing has changed, and why."""
    with refusals():
        return state_of(live, await live.apply(text_of(wanted, caller), name_of(caller)))


@api.post("/rollback")
async def rollback_config(live: Changeable, caller: CallerOf) -> ConfigState:
    """Puts the configuration before in force. 400: there is none, or it cannot be served now."""
    with refusals():
        return state_of(live, await live.rollback(name_of(caller)))


def text_of(wanted: ConfigText | None, caller: Caller) -> str | None:
    """None for experts.yaml. Raises ApiError 403: a text without a key."""
    if wanted is not None and caller.key_id is None:
        raise ApiError(
            "a configuration in the body needs an admin's key; without one experts.yaml can be applied, with no body",
            status=403,
            code="admin_required",
        )
    return None if wanted is None else wanted.experts_yaml


def name_of(caller: Caller) -> str:
    return "api" if caller.key_id is None else f"api, {caller.key_id}"


@contextmanager
def refusals() -> Iterator[None]:
    """Around what refuses a configuration: raises ApiError 400."""
    try:
        yield
    except ConfigError as error:
        raise ApiError(str(error), code="invalid_config", param="experts_yaml") from error


def state_of(live: LiveConfig, found: InForce) -> ConfigState:
    shown = found.model_dump(include={"number", "at", "by", "before"})
    return ConfigState(**shown, served=live.number, problem=live.problem)
