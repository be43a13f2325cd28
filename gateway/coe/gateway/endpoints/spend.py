"""GET /v1/spend: requests, tokens and cost by key, of the caller's team; of all teams for an admin."""

from __future__ import annotations

import time
from functools import partial
from typing import Literal

from pydantic import FiniteFloat

from coe.decision_log.spend import Spend
from coe.gateway.endpoints.access import CallerOf, LogDatabase, api_router, scan
from coe.gateway.keys.grants import tenant_of
from coe.router.types import Record

api = api_router()

DEFAULT_DAYS = 30
DAY_S = 86_400.0


class KeySpend(Spend):
    """Spend of a key. `team` is '' where no key was needed."""

    team: str


class SpendList(Record):
    """Spend of keys, with since <= at < until; dearest first. Where `looked_back_to` (Unix seconds) is not null, it is
    that of what is newer, and the rest is still being added up."""

    object: Literal["list"] = "list"
    since: float
    until: float | None
    looked_back_to: float | None
    data: tuple[KeySpend, ...]


@api.get("/v1/spend")
async def show_spend(
    database: LogDatabase, caller: CallerOf, since: FiniteFloat | None = None, until: FiniteFloat | None = None
) -> SpendList:
    """Sums over the logged requests with since <= at < until (Unix seconds; by default the last 30 days)."""
    begin = time.time() - DEFAULT_DAYS * DAY_S if since is None else since
    team = None if caller.is_admin else caller.tenant
    rows, looked_back_to = await scan(partial(database.spend, team, begin, until))
    data = tuple(KeySpend(team=tenant_of(row.key_id), **row.model_dump()) for row in rows)
    return SpendList(since=begin, until=until, looked_back_to=looked_back_to, data=data)
