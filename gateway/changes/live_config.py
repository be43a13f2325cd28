"""The configuration that a gateway serves with, replaced as a whole when another one is put in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from base.errors import ConfigError, RouterError
from fleet.tasks import Poller
from gateway.changes.confirmations import Confirmation, Confirmed
from gateway.changes.difference import checked, differences
from gateway.changes.history import History, InForce, Note, previous
from gateway.settings import Settings, variables_of_experts
from router.config import CoeConfig, config_text

POLL_EVERY_S = 0.5

logger = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A configuration that is ready to be served: one of the two follows."""

    serve: Callable[[], None]
    drop: Callable[[], Awaitable[None]]


class LiveConfig(Poller):
    """Follows `<data>/config/live.json`, and puts configurations there.

    Args:
        started: the configuration that the gateway started with.
        found: the state in the file then.
        note: as `History` has it.
    """

    def __init__(self, settings: Settings, started: CoeConfig, found: InForce | None, note: Note | None = None) -> None:
        super().__init__("the configuration in force", POLL_EVERY_S, longest_s=POLL_EVERY_S)
        self.started = self._served = started
        self.history = History(settings.data_dir, note)
        self.problem: str | None = None  # why the last change was not taken
        self.number = 0 if found is None else found.number  # of the copy that this process serves with
        self._settings = settings
        self._seen = 0 if found is None else found.change
        self._changing = asyncio.Lock()
        self._confirmation: Confirmation | None = None

    async def follow(self, prepare: Callable[[CoeConfig], Awaitable[Prepared]]) -> None:
        """Follows from now on. `prepare` raises RouterError where the gateway cannot serve a configuration."""
        self._prepare = prepare
        self._confirmation = Confirmation(self.history.root)
        self._confirm()
        await self.start()

    async def aclose(self) -> None:
        await super().aclose()
        if self._confirmation is not None:
            self._confirmation.close()

    def _confirm(self) -> None:
        """Says what this process has seen and serves, to commands that wait for it."""
        if self._confirmation is not None:
            self._confirmation.write(Confirmed(change=self._seen, number=self.number, problem=self.problem))

    async def plan(self, text: str | None) -> list[str]:
        """The changes that a text, or experts.yaml, would make. Raises ConfigError."""
        config, _, _ = await self._wanted(text)
        found = await asyncio.to_thread(self.history.current)
        before = await asyncio.to_thread(self.history.config, found.number)
        return list(differences(before, config).values())

    async def apply(self, text: str | None, by: str) -> InForce:
        """Puts a text, or experts.yaml, in force for every gateway of the data folder.

        Raises:
            ConfigError: nothing has changed.
        """
        async with self._changing:
            config, wanted, file_text = await self._wanted(text)
            return await self._put(config, lambda: self.history.apply(wanted, file_text, by))

    async def rollback(self, by: str) -> InForce:
        """Puts the configuration before in force. Raises ConfigError: nothing has changed."""
        async with self._changing:
            found = await asyncio.to_thread(self.history.current)
            before = await asyncio.to_thread(self.history.text, previous(found))
            config, _, file_text = await self._checked(before)
            return await self._put(config, lambda: self.history.rollback(found, file_text, by))

    async def _wanted(self, text: str | None) -> tuple[CoeConfig, str, str]:
        """As `_checked`, of what a client asks for: its experts may name only variables that those of somebody's
        experts.yaml named, or it could have any secret of this process sent to an address of its own, such as the key
        of an encoder."""
        config, wanted, file_text = await self._checked(text)
        known = variables_of_experts(self.started) | variables_of_experts(self._served)
        if text is not None and (new := sorted(variables_of_experts(config) - known)):
            raise ConfigError(f"the variables {', '.join(new)} are named by experts.yaml only, not through the API")
        return config, wanted, file_text

    async def _checked(self, text: str | None) -> tuple[CoeConfig, str, str]:
        """A text, or experts.yaml, as a configuration and as it is, and the text of the file. Raises ConfigError."""
        path = self._settings.config_path
        file_text = await asyncio.to_thread(config_text, path)
        wanted = file_text if text is None else text
        config = await asyncio.to_thread(checked, wanted, path, self._settings.data_dir, self.started)
        return config, wanted, file_text

    async def _put(self, config: CoeConfig, write: Callable[[], InForce]) -> InForce:
        """Serves with it here once it is on disk, where the others see it."""
        prepared = await self._prepare(config)
        try:
            found = await asyncio.to_thread(write)
        except BaseException:
            await prepared.drop()
            raise
        self._take(prepared, config, found)
        await asyncio.to_thread(self._confirm)
        return found

    async def look(self) -> None:
        """Takes what was put in force elsewhere. What cannot be taken is logged, and all stays as it is."""
        async with self._changing:
            try:
                found = await asyncio.to_thread(self.history.read)
                if found is None or found.change == self._seen:
                    return
                self._seen = found.change
                text = await asyncio.to_thread(self.history.text, found.number)
                config, _, _ = await self._checked(text)
                self._take(await self._prepare(config), config, found)
            except (RouterError, OSError, ValueError, KeyError) as error:
                problem = f"the configuration in force is not served: {error}"
                if problem != self.problem:
                    logger.error("%s", problem)
                self.problem = problem
            await asyncio.to_thread(self._confirm)

    def _take(self, prepared: Prepared, config: CoeConfig, found: InForce) -> None:
        prepared.serve()
        self._served = config
        self._seen, self.number, self.problem = found.change, found.number, None
        logger.info("configuration %d, put in force by %s, is served", found.number, found.by)
