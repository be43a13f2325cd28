"""GET /v1/spend: requests, tokens and cost by key, of the caller's team; of all teams for an admin."""

from __future__ import annotations

import time
from functools import partial
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, FiniteFloat

from coe.decision_log.privacy import tenant_of
from coe.decision_log.spend import SLOT_S, Spend, slots_of
from coe.gateway.endpoints.access import CallerOf, LogDatabase, api_router, scan
from coe.router.types import Record

api = api_router()

DEFAULT_DAYS = 30
DAY_S = 86_400.0


class KeySpend(Spend):
    """Spend of a key. `team` is '' where no key was needed."""

    team: str


class SpendList(Record):
    """Spend of keys, with since <= at < until; dearest first. Both are those asked for, widened to quarters of an
    hour."""

    object: Literal["list"] = "list"
    since: float
    until: float | None
    data: tuple[KeySpend, ...]


class SpendQuery(BaseModel):
    """The span of time, in Unix seconds."""

    model_config = ConfigDict(extra="forbid")
    since: FiniteFloat | None = None
    until: FiniteFloat | None = None


@api.get("/v1/spend")
async def show_spend(database: LogDatabase, caller: CallerOf, wanted: Annotated[SpendQuery, Query()]) -> SpendList:
    """Sums over the logged requests with since <= at < until (Unix seconds; by default the last 30 days)."""
    since, until = wanted.since, wanted.until
    begin = time.time() - DEFAULT_DAYS * DAY_S if since is None else since
    team = None if caller.is_admin else caller.tenant
    slots = slots_of(begin, until)
    rows = await scan(partial(database.spend, team, slots))
    data = tuple(KeySpend(team=tenant_of(row.key_id), **row.model_dump()) for row in rows)
    end = None if until is None else float(slots.stop * SLOT_S)
    return SpendList(since=float(slots.start * SLOT_S), until=end, data=data)
