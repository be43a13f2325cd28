"""The router in force, replaced as a whole when another one is promoted."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from router.errors import RouterError
from router.pipeline import Router

LIVE_FILE = "live.json"
POLL_EVERY_S = 0.5

logger = logging.getLogger(__name__)


class Promotion(NamedTuple):
    """The version that `live.json` names, and when the file was written (st_mtime_ns)."""

    version: str
    written_ns: int


class LiveRouter:
    """Holds the current router and follows `live.json`.

    Args:
        folder: holds `live.json` and a folder per version.
        load: reads a router from a version's folder; runs in a thread. Raises RouterError.
        current: a router to begin with.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Router], current: Router | None = None) -> None:
        self._folder = folder
        self._load = load
        self._poller: asyncio.Task[None] | None = None
        self._refused: Promotion | None = None  # not tried again until live.json is written again
        self.current = current
        self.loads = 0
        self.refusals = 0
        self.last_error: str | None = None

    async def start(self, poll_every_s: float = POLL_EVERY_S) -> None:
        """Loads what is promoted now, then follows changes."""
        await self.refresh()
        self._poller = asyncio.create_task(self._poll(poll_every_s), name="live-router")

    async def aclose(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def refresh(self) -> None:
        """Swaps to the promoted version when it is another one; a bad one is refused and the old one goes on."""
        promotion = await asyncio.to_thread(self._promotion)
        if promotion is None or promotion == self._refused:
            return
        version = promotion.version
        if self.current is not None and version == self.current.version:
            return
        try:
            router = await asyncio.to_thread(self._load, self._folder / version)
            if router.version != version:
                raise RouterError(f"{LIVE_FILE} names version {version}, the folder holds {router.version}")
        except (RouterError, OSError, ValueError, KeyError) as error:
            self._refuse(promotion, error)
            return
        # One assignment: a request that has begun keeps the router it took.
        self.current, self._refused, self.last_error = router, None, None
        self.loads += 1
        logger.info("router %s is live", version)

    def _promotion(self) -> Promotion | None:
        """What `live.json` says; None while there is none that can be read."""
        path = self._folder / LIVE_FILE
        try:
            written_ns = path.stat().st_mtime_ns
            values = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self.last_error = f"{LIVE_FILE} cannot be read ({type(error).__name__})"
            return None
        version = values.get("version") if isinstance(values, dict) else None
        if not isinstance(version, str) or not version.isalnum():
            self.last_error = f"{LIVE_FILE} names no version"
            return None
        return Promotion(version, written_ns)

    def _refuse(self, promotion: Promotion, error: Exception) -> None:
        self._refused = promotion
        self.refusals += 1
        self.last_error = str(error) if isinstance(error, RouterError) else f"{type(error).__name__} while loading"
        kept = self.current.version if self.current else "none"
        logger.error("router %s is refused, %s stays live: %s", promotion.version, kept, self.last_error)

    async def _poll(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            await self.refresh()
