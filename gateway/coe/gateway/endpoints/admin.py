"""/v1/admin/config: which configuration is in force, and another one in its place, for keys with admin scope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends
from pydantic import Field

from coe.base.errors import ConfigError
from coe.base.json_text import Body
from coe.gateway.auth import require_admin
from coe.gateway.changes.in_force import InForce
from coe.gateway.changes.live_config import LiveConfig
from coe.gateway.endpoints.access import CallerOf, LiveConfigOf, api_router
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.grants import Caller
from coe.router.types import Record

api = api_router("/v1/admin/config")


class ConfigChange(Body):
    """A configuration to put in force: experts.yaml as it is now, unless the body says otherwise."""

    experts_yaml: str | None = Field(default=None, min_length=1, description="the text of a whole experts.yaml")
    back: bool = Field(default=False, description="take the configuration that was in force before, instead")
    dry_run: bool = Field(default=False, description="only say what would change, or why it is refused")


class ConfigState(Record):
    """The configuration in force. `served` is that of the process that answers, `problem` why it is not `number`.
    `changes` are those that the request made, or would make, one line each."""

    number: int
    at: str
    by: str
    served: int
    problem: str | None
    changes: tuple[str, ...] = ()


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
        return state_of(live, await live.current())


@api.post("/apply")
async def apply_config(live: Changeable, caller: CallerOf, wanted: ConfigChange | None = None) -> ConfigState:
    """Puts a configuration in force, and says what that changes. 400: nothing has changed, and every reason why."""
    body = wanted or ConfigChange()
    if body.experts_yaml is not None and caller.key_id is None:
        raise ApiError(
            "`experts_yaml` needs an admin's key; without one the file, as it is, can be applied",
            status=403,
            code="admin_required",
        )
    if body.experts_yaml is not None and body.back:
        raise ApiError("`back` takes the configuration before; allowed: it or `experts_yaml`", param="back")
    with refusals():
        applied = await live.apply(body.experts_yaml, name_of(caller), back=body.back, dry_run=body.dry_run)
        return state_of(live, *applied)


def name_of(caller: Caller) -> str:
    return "api" if caller.key_id is None else f"api, {caller.key_id}"


@contextmanager
def refusals() -> Iterator[None]:
    """Around what refuses a configuration: raises ApiError 400."""
    try:
        yield
    except ConfigError as error:
        raise ApiError(str(error), code="invalid_config", param="experts_yaml") from error


def state_of(live: LiveConfig, found: InForce, changes: Iterable[str] = ()) -> ConfigState:
    shown = found.model_dump(include={"number", "at", "by"})
    return ConfigState(**shown, served=live.number, problem=live.problem, changes=tuple(changes))
