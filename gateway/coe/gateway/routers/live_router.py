"""The routers in force, replaced as a whole when another one is promoted or a trial begins or ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from coe.base.errors import ArtifactError, ConfigError, RouterError
from coe.fleet.processes.tasks import Poller
from coe.fleet.router_registry import withdraw
from coe.gateway.settings import Settings
from coe.router.build import build_encoder, load_router
from coe.router.config.composition import CoeConfig
from coe.router.live_pointer import LIVE_FILE, ROUTERS_FOLDER, LivePointer, Trial, read_pointer
from coe.router.pipeline import Router
from coe.router.protocols import Encoder

POLL_EVERY_S = 0.5

CANDIDATE_FAULTS = (ArithmeticError, ArtifactError, AttributeError, ConfigError, LookupError, TypeError, ValueError)
"""Errors that a router that does not fit raises while it decides. That no expert can serve is not among them: the
request may ask for too much."""

logger = logging.getLogger(__name__)


class Candidate(NamedTuple):
    """A trial with its router."""

    trial: Trial
    router: Router


class Serving(NamedTuple):
    """The routers that one request sees."""

    live: Router | None
    candidate: Candidate | None = None


class LiveRouter(Poller):
    """Holds the routers in force and follows `live.json`.

    Args:
        folder: holds `live.json` and a folder per version.
        load: reads a router from a version's folder; runs in a thread. Raises RouterError.
        current: a router to begin with.
    """

    def __init__(self, folder: Path, load: Callable[[Path], Router], current: Router | None = None) -> None:
        super().__init__("a newer router", POLL_EVERY_S, longest_s=POLL_EVERY_S)
        self.folder = folder
        self._load = load
        self._refused: set[tuple[str, int]] = set()  # (version, written_ns): not tried again until written again
        self._refreshing = asyncio.Lock()
        self.serving = Serving(current)
        self.loads = 0
        self.refusals = 0
        self.last_error: str | None = None
        self.withdrawals = 0  # trials ended here
        self.faults: dict[str, int] = {}  # candidate's version -> decisions that it could not make

    def changed(self, load: Callable[[Path], Router]) -> LiveRouter:
        """One that reads the same routers in another way, as after a change of experts.yaml, and counts on."""
        live = LiveRouter(self.folder, load)
        live.loads, live.refusals, live.withdrawals = self.loads, self.refusals, self.withdrawals
        return live

    @property
    def current(self) -> Router | None:
        return self.serving.live

    @property
    def trial(self) -> Trial | None:
        """The trial that runs here."""
        return self.serving.candidate.trial if self.serving.candidate else None

    async def start(self) -> None:
        """Loads what is promoted now, then follows changes."""
        await self.refresh()
        await super().start()

    async def look(self) -> None:
        """Follows `live.json`, and ends the trial of a candidate that could not decide a query."""
        await self.refresh()
        await self._withdraw_faulty()

    def try_load(self, folder: Path) -> None:
        """Reads a router as if it were promoted. Raises ConfigError: this gateway could not serve it."""
        try:
            self._load(folder)
        except RouterError as error:
            raise ConfigError(f"nothing was changed: this gateway could not load that router: {error}") from error

    def _written_ns(self) -> int | None:
        """Time at which `live.json` was written; None without one."""
        try:
            return (self.folder / LIVE_FILE).stat().st_mtime_ns
        except OSError:
            return None

    async def refresh(self) -> None:
        """Swaps to what is promoted and on trial; a bad router is refused and the old one stays."""
        async with self._refreshing:
            written_ns = self._written_ns()
            pointer = await asyncio.to_thread(self._pointer)
            if pointer is None or written_ns is None:
                return
            before, trial = self.serving, pointer.trial
            live = await self._router(pointer.version, written_ns) or before.live
            tried = None if trial is None else await self._router(trial.version, written_ns)
            candidate = None if trial is None or tried is None else Candidate(trial, tried)
            # One assignment: a request that has begun keeps the routers it took.
            self.serving = Serving(live, candidate)
            if candidate != before.candidate:
                logger.info("%s", trial_line(candidate, before.candidate))

    async def _router(self, version: str, written_ns: int) -> Router | None:
        """The router of that version: one that is held already, or loaded now; None when it is refused."""
        held = (self.serving.live, self.serving.candidate.router if self.serving.candidate else None)
        for router in held:
            if router is not None and router.version == version:
                return router
        if (version, written_ns) in self._refused:
            return None
        try:
            router = await asyncio.to_thread(self._load, self.folder / version)
            if router.version != version:
                raise RouterError(f"{LIVE_FILE} names version {version}, the folder holds {router.version}")
        except (RouterError, OSError, ValueError, KeyError) as error:
            self._refuse(version, written_ns, error)
            return None
        self.last_error = None
        self.loads += 1
        logger.info("router %s is loaded", version)
        return router

    def _pointer(self) -> LivePointer | None:
        """The content of `live.json`; None while it cannot be read."""
        try:
            return read_pointer(self.folder)
        except ArtifactError as error:
            self.last_error = str(error)
            return None

    def note_fault(self, version: str, error: Exception) -> None:
        """A candidate could not decide; the live router did. The message may hold prompt text and is not kept."""
        self.faults[version] = self.faults.get(version, 0) + 1
        logger.error("router %s, on trial, could not decide (%s)", version, type(error).__name__)

    def _refuse(self, version: str, written_ns: int, error: Exception) -> None:
        self._refused = {(name, at) for name, at in self._refused if at == written_ns} | {(version, written_ns)}
        self.refusals += 1
        self.last_error = str(error) if isinstance(error, RouterError) else f"{type(error).__name__} while loading"
        kept = self.current.version if self.current else "none"
        logger.error("router %s is refused, %s stays live: %s", version, kept, self.last_error)

    async def _withdraw_faulty(self) -> None:
        trial = self.trial
        if trial is None or not self.faults.get(trial.version):
            return
        reason = "it could not decide a query that the live router could"
        try:
            self.withdrawals += await asyncio.to_thread(withdraw, self.folder, trial, reason)
        except (ArtifactError, OSError) as error:
            logger.warning("the trial of router %s cannot be ended now (%s)", trial.version, type(error).__name__)
            return
        self.faults.pop(trial.version, None)
        await self.refresh()


def live_router(settings: Settings, config: CoeConfig) -> LiveRouter:
    """The routers of the data folder, not loaded yet."""
    return LiveRouter(settings.data_dir / ROUTERS_FOLDER, router_loader(config))


def router_loader(config: CoeConfig, encoder: Encoder | None = None) -> Callable[[Path], Router]:
    """Reads routers from their folders; raises RouterError. All share one encoder, the slowest part to load, which does
    not change while a gateway runs."""
    shared = cache(lambda: encoder or build_encoder(config.router.encoder))
    return lambda folder: load_router(config, folder, shared())


def trial_line(candidate: Candidate | None, before: Candidate | None) -> str:
    """A line that says how the trial has changed."""
    if candidate is None:
        return f"the trial of router {before.trial.version if before else 'none'} has ended here"
    trial = candidate.trial
    return f"router {trial.version} is on trial and serves {trial.share:.1%} of the conversations"
