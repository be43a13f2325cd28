"""The configuration that a gateway serves with, replaced as a whole when another one is put in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from coe.base.errors import ConfigError, RouterError
from coe.fleet.tasks import Poller
from coe.gateway.changes.difference import checked, differences
from coe.gateway.changes.in_force import InForce, current, parsed, put, read, text_before
from coe.gateway.settings import Settings, variables_of_experts
from coe.router.config import CoeConfig, config_text

POLL_EVERY_S = 0.5

logger = logging.getLogger(__name__)

Note = Callable[[str, str, str, str, str], None]


class Prepared(NamedTuple):
    """A configuration that is ready to be served: one of the two follows."""

    serve: Callable[[], None]
    drop: Callable[[], Awaitable[None]]


class LiveConfig(Poller):
    """Follows `<data>/config/live.json`, and puts configurations there.

    Args:
        started: the configuration that the gateway started with.
        found: the state in the file then.
        note: writes down who did what to which of them: actor, action, subject, before, after.
    """

    def __init__(self, settings: Settings, started: CoeConfig, found: InForce | None, note: Note | None = None) -> None:
        super().__init__("the configuration in force", POLL_EVERY_S, longest_s=POLL_EVERY_S)
        self.started = self._served = started
        self.problem: str | None = None  # why the last change was not taken
        self.number = self._seen = 0 if found is None else found.number  # the change that this process serves
        self._settings, self._note = settings, note
        self._changing = asyncio.Lock()

    async def follow(self, prepare: Callable[[CoeConfig], Awaitable[Prepared]]) -> None:
        """Follows from now on. `prepare` raises RouterError where the gateway cannot serve a configuration."""
        self._prepare = prepare
        await self.start()

    async def current(self) -> InForce:
        """Raises ConfigError."""
        return await asyncio.to_thread(current, self._settings.data_dir)

    async def apply(
        self, text: str | None, by: str, *, back: bool = False, dry_run: bool = False
    ) -> tuple[InForce, list[str]]:
        """Puts a text, experts.yaml, or what was in force before (`back`) in force for every gateway of the data
        folder, and gives the changes that this makes. A client's text may name, for its experts, only variables that
        somebody's experts.yaml named for experts, or it could have any secret of this process sent to an address of
        its own, such as the key of an encoder.

        Raises:
            ConfigError: nothing has changed.
            StoreError: it is in force, and could not be noted.
        """
        async with self._changing:
            found = await self.current()
            file_text = await asyncio.to_thread(config_text, self._settings.config_path)
            wanted = text_before(found) if back else file_text if text is None else text
            config = await self._checked(wanted)
            known = variables_of_experts(self.started) | variables_of_experts(self._served)
            if not back and text is not None and (new := sorted(variables_of_experts(config) - known)):
                raise ConfigError(f"the variables {', '.join(new)} are named by experts.yaml only, not through the API")
            changes = list(differences(parsed(found.text, self._settings.config_path), config).values())
            if not dry_run:
                found = await self._put(config, partial(put, self._settings.data_dir, wanted, file_text, by))
        if self._note is not None and not dry_run:
            numbers = str(found.number - 1), str(found.number)
            await asyncio.to_thread(self._note, by, "back" if back else "apply", "configuration", *numbers)
        return found, changes

    async def _checked(self, text: str) -> CoeConfig:
        return await asyncio.to_thread(checked, text, self._settings.config_path, self._settings.data_dir, self.started)

    async def _put(self, config: CoeConfig, write: Callable[[], InForce]) -> InForce:
        """Serves with it here once it is on disk, where the others see it."""
        prepared = await self._prepare(config)
        try:
            found = await asyncio.to_thread(write)
        except BaseException:
            await prepared.drop()
            raise
        self._take(prepared, config, found)
        return found

    async def look(self) -> None:
        """Takes what was put in force elsewhere. What cannot be taken is logged, and all stays as it is."""
        async with self._changing:
            try:
                found = await asyncio.to_thread(read, self._settings.data_dir)
                if found is None or found.number == self._seen:
                    return
                self._seen = found.number
                config = await self._checked(found.text)
                self._take(await self._prepare(config), config, found)
            except (RouterError, OSError, ValueError, KeyError) as error:
                problem = f"the configuration in force is not served: {error}"
                if problem != self.problem:
                    logger.error("%s", problem)
                self.problem = problem

    def _take(self, prepared: Prepared, config: CoeConfig, found: InForce) -> None:
        prepared.serve()
        self._served, self.problem = config, None
        self.number = self._seen = found.number
        logger.info("configuration %d, put in force by %s, is served", found.number, found.by)
