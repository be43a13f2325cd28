"""Housekeeping of a running gateway: forgets who was erased and removes what is past its time."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.sql_removal import Removal
from coe.fleet.tasks import Poller

if TYPE_CHECKING:
    from coe.decision_log.sink import DecisionLog

LOOK_EVERY_S = 10.0
ROUND_EVERY_S = 3600.0
CLOCKS_DIFFER_S = 3600.0
DAY_S = 86_400.0

logger = logging.getLogger(__name__)


class Housekeeper(Poller):
    """Looks for erasures every `LOOK_EVERY_S` and does the rest every `ROUND_EVERY_S`; a database that is away delays
    both.

    Args:
        log: what forgets who was erased; None where a process holds no records.
        keep_days: age at which decisions are removed; None keeps them for ever.
    """

    def __init__(self, database: Database, log: DecisionLog | None, *, keep_days: float | None) -> None:
        super().__init__("the log's housekeeping", LOOK_EVERY_S, (StoreError,))
        self._removal = Removal(database)
        self._log = log
        self._keep_days = keep_days
        self._looked = time.time()
        self._known: dict[str, float] = {}  # erasures that were seen already
        self._next_round = 0.0  # on the monotonic clock

    async def look(self) -> None:
        """Runs once what is due. Raises StoreError."""
        if self._log is not None:
            await self._forget(self._log)
        if time.monotonic() < self._next_round:
            return
        if self._keep_days is not None:
            now = time.time()
            gone = await asyncio.to_thread(self._removal.prune, now - self._keep_days * DAY_S, now)
            if gone.decisions:
                logger.info("removed %d decisions older than %g days", gone.decisions, self._keep_days)
        self._next_round = time.monotonic() + ROUND_EVERY_S

    async def _forget(self, log: DecisionLog) -> None:
        looked = time.time()
        # Times are those of the eraser's clock: a later erasure may have an earlier one.
        erased = await asyncio.to_thread(self._removal.erased_since, self._looked - CLOCKS_DIFFER_S)
        if new := dict(erased.items() - self._known.items()):
            logger.info("forgot %d decisions of subjects that were erased", log.forget(new))
        self._looked, self._known = looked, erased
