"""Housekeeping of a running gateway: the removal of expired decisions."""

from __future__ import annotations

import asyncio
import logging
import time

from coe.base.errors import StoreError
from coe.decision_log.database import Database
from coe.decision_log.sql_removal import Removal
from coe.fleet.processes.tasks import Poller

LOOK_EVERY_S = 600.0
DAY_S = 86_400.0

logger = logging.getLogger(__name__)


class Housekeeper(Poller):
    """A task that removes expired decisions every `LOOK_EVERY_S`; an unavailable database delays it.

    Args:
        keep_days: age in days at which decisions are removed.
    """

    def __init__(self, database: Database, keep_days: float) -> None:
        super().__init__("the log's housekeeping", LOOK_EVERY_S, (StoreError,))
        self._removal = Removal(database)
        self._keep_days = keep_days

    async def look(self) -> None:
        """Remove expired decisions once; may raise StoreError."""
        now = time.time()
        gone = await asyncio.to_thread(self._removal.prune, now - self._keep_days * DAY_S, now)
        if gone.decisions:
            logger.info("removed %d decisions older than %g days", gone.decisions, self._keep_days)
