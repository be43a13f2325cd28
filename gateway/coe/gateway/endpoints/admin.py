"""/v1/admin, for keys with admin scope: the configuration in force; the trained routers, which one is live or on trial,
and another one in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Response

from coe.base.errors import ArtifactError, ConfigError
from coe.base.json_text import Body
from coe.decision_log.admin_log import AdminLog
from coe.decision_log.database import Database
from coe.decision_log.e_process import Arm
from coe.decision_log.router_versions import RouterVersions
from coe.fleet.router_registry import Registry
from coe.gateway.changes.live_config import LiveConfig
from coe.gateway.endpoints.access import CallerOf, LogDatabase, answer, api_router, part
from coe.gateway.http.auth import require_admin
from coe.gateway.http_errors import ApiError
from coe.gateway.keys.grants import Caller
from coe.gateway.routers.live_router import LiveRouter
from coe.gateway.routers.trial_watch import find
from coe.router.live_pointer import CanaryTerms, LivePointer, Trial
from coe.router.model_files.artifact import RouterManifest
from coe.router.types import Record

api = api_router("/v1/admin")
Live = Annotated[LiveRouter, part("live")]


class ConfigState(Record):
    """The configuration in force. `served` is that of the process that answers, `problem` why it is not `number`."""

    number: int
    at: str
    by: str
    served: int
    problem: str | None


class TrialRequest(Body):
    """A trial: `canary` are the terms under which the router serves."""

    canary: CanaryTerms


@api.get("/config")
async def show_config(live: Annotated[LiveConfig | None, part("live_config")], caller: CallerOf) -> ConfigState:
    """The configuration in force, and the one that the process asked serves with; `coe config apply` changes it."""
    require_admin(caller)
    if live is None:
        raise ApiError("this gateway takes no other configuration", status=503, code="config_unavailable")
    found = await live.current()
    return ConfigState(number=found.number, at=found.at, by=found.by, served=live.number, problem=live.problem)


@api.get("/routers", response_model=None)
async def list_routers(
    live: Live, database: LogDatabase, caller: CallerOf, standing: Annotated[Callable[[], Any], part("standing")]
) -> Response:
    """Every router with its part now, newest first; the evidence of a trial; the last rounds of `coe retrain`; the
    certificate with its state."""
    require_admin(caller)

    def found() -> dict[str, Any]:
        own = standing()
        view = own and own.certificate.model_dump(mode="json") | {"state": own.state, "why": own.why}
        return state_of(live, database) | {"certificate": view}

    return await answered(found)


@api.post("/routers/rollback", response_model=None)
async def rollback_router(live: Live, database: LogDatabase, caller: CallerOf) -> Response:
    """Ends the trial where one runs, else goes back to the router before. 400: there is neither."""
    require_admin(caller)

    def roll_back() -> dict[str, Any]:
        registry = Registry(live.folder)
        before = registry.live()
        pointer = registry.rollback(datetime.now(UTC))
        note(database, caller, "rollback", before and (before.trial or before), pointer)
        return state_of(live, database)

    return await answered(roll_back)


@api.post("/routers/{version}/promote", response_model=None)
async def promote_router(version: str, live: Live, database: LogDatabase, caller: CallerOf) -> Response:
    """Makes a router live; a trial ends. 400: it is unknown or damaged, or this gateway could not serve it."""
    require_admin(caller)

    def promote() -> dict[str, Any]:
        registry = Registry(live.folder)
        live.try_load(registry.folder(version))
        before = registry.live()
        note(database, caller, "promote", before, registry.promote(version, datetime.now(UTC)))
        return state_of(live, database)

    return await answered(promote)


def note(
    database: Database, caller: Caller, action: str, before: LivePointer | Trial | None, after: LivePointer
) -> None:
    """Adds a line to the admin log. Raises StoreError."""
    actor = "api" if caller.key_id is None else f"api, {caller.key_id}"
    AdminLog(database).note(actor, action, "router", before.version if before else "", after.version)


@api.post("/routers/{version}/try", response_model=None)
async def try_router(
    version: str, wanted: TrialRequest, live: Live, database: LogDatabase, caller: CallerOf
) -> Response:
    """Begins a trial, in the place of one that runs. 400 as for `promote`, or the router is live already."""
    require_admin(caller)

    def begin() -> dict[str, Any]:
        registry = Registry(live.folder)
        folder = registry.folder(version)
        live.try_load(folder)
        registry.try_out(Trial(version=folder.name, started_at=time.time(), **wanted.canary.model_dump()))
        return state_of(live, database)

    return await answered(begin)


async def answered(work: Callable[[], dict[str, Any]]) -> Response:
    """The answer of work on the routers' folder. Raises ApiError 400."""
    try:
        return answer(await asyncio.to_thread(work))
    except (ArtifactError, ConfigError) as error:
        raise ApiError(str(error), code="invalid_router") from error


def state_of(live: LiveRouter, database: Database) -> dict[str, Any]:
    registry = Registry(live.folder)
    pointer = registry.live()
    trial = None if pointer is None else pointer.trial
    return {
        "live": None if pointer is None else pointer.version,
        "promoted_at": None if pointer is None else pointer.promoted_at,
        "before": [] if pointer is None else list(pointer.history),
        "served": None if live.current is None else live.current.version,
        "trial": None if pointer is None or trial is None else trial_view(pointer, trial, database),
        "routers": [router_view(manifest, pointer) for manifest in reversed(registry.versions())],
        "withdrawn": [] if pointer is None else [each.model_dump() for each in pointer.withdrawn],
        "damaged": registry.damaged(),
        "rounds": registry.rounds(),
    }


def router_view(manifest: RouterManifest, pointer: LivePointer | None) -> dict[str, Any]:
    return {
        "role": "" if pointer is None else pointer.part_of(manifest.version),
        **manifest.model_dump(mode="json", exclude={"schema_version", "data_fingerprints", "weights_sha256"}),
    }


def trial_view(pointer: LivePointer, trial: Trial, database: Database) -> dict[str, Any]:
    """A trial with what the log says of it so far; it ends once a value of `log_e` reaches `limit`."""
    evidence = RouterVersions(database).evidence(pointer.version, trial)
    finding = find(evidence, trial)
    return trial.model_dump(mode="json") | {
        "rewards": {"candidate": arm_view(evidence.candidate_reward), "live": arm_view(evidence.live_reward)},
        "answered": {"candidate": arm_view(evidence.candidate_success), "live": arm_view(evidence.live_success)},
        "log_e": {"reward": finding.reward, "failures": finding.failures},
        "limit": finding.limit(trial),
    }


def arm_view(arm: Arm) -> dict[str, Any]:
    return {"n": arm.n, "mean": arm.mean}
