"""The configuration that a gateway serves with, replaced as a whole when another one is put in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from coe.base.errors import RouterError
from coe.fleet.processes.tasks import Poller
from coe.gateway.changes.difference import checked
from coe.gateway.changes.in_force import InForce, current, read
from coe.gateway.settings import Settings
from coe.router.config.composition import CoeConfig

POLL_EVERY_S = 0.5

logger = logging.getLogger(__name__)


class LiveConfig(Poller):
    """Follows `<data>/config/live.json`.

    Args:
        started: the configuration that the gateway started with.
        found: the state in the file then.
    """

    def __init__(self, settings: Settings, started: CoeConfig, found: InForce | None) -> None:
        super().__init__("the configuration in force", POLL_EVERY_S, longest_s=POLL_EVERY_S)
        self.started = started
        self.folder = settings.config_path.resolve().parent  # of experts.yaml
        self.problem: str | None = None  # why the last change was not taken
        self.number = self._seen = 0 if found is None else found.number  # the change that this process serves
        self._settings = settings

    async def follow(self, serve: Callable[[CoeConfig], Awaitable[None]]) -> None:
        """Follows from now on. `serve` raises RouterError where the gateway cannot serve a configuration."""
        self._serve = serve
        await self.start()

    async def current(self) -> InForce:
        """Raises ConfigError."""
        return await asyncio.to_thread(current, self._settings.data_dir)

    async def look(self) -> None:
        """Takes what was put in force. What cannot be taken is logged, and all stays as it is."""
        path, data_dir = self._settings.config_path, self._settings.data_dir
        try:
            found = await asyncio.to_thread(read, data_dir)
            if found is None or found.number == self._seen:
                return
            self._seen = found.number
            await self._serve(await asyncio.to_thread(checked, found.text, path, data_dir, self.started))
        except (RouterError, OSError, ValueError, KeyError) as error:
            problem = f"the configuration in force is not served: {error}"
            if problem != self.problem:
                logger.error("%s", problem)
            self.problem = problem
        else:
            self.problem, self.number = None, found.number
            logger.info("configuration %d, put in force by %s, is served", found.number, found.by)
