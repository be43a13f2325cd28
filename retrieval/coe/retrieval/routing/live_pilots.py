"""The current pilot library, replaced as a whole when another one is written into its folder."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coe.base.errors import RouterError
from coe.fleet.processes.tasks import Poller
from coe.retrieval.build_experts import first_lexical
from coe.retrieval.routing.fusion import plain_column
from coe.retrieval.routing.pilot_library import MANIFEST_FILE, WEIGHTS_FILES, PilotLibrary, load_library
from coe.retrieval.routing.pilot_router import build_router
from coe.retrieval.routing.query_routing import Choices, QueryRouting
from coe.retrieval.types import BASE, DenseExpert, RetrievalExpert

POLL_EVERY_S = 0.5
"""Seconds between two looks at the folder."""

Stamp = tuple[tuple[str, int, int], ...]
"""Name, modification time (ns) and size in bytes of a library's files, the manifest first."""

logger = logging.getLogger(__name__)


def make_choices(library: PilotLibrary | None, experts: Mapping[str, RetrievalExpert]) -> Choices:
    """Build both choices from one library; without one, base serves all, fused with BM25 if there is one.

    Raises:
        ArtifactError: the library was made on another base.
    """
    base = experts[BASE]
    sharing = [name for name, each in experts.items() if isinstance(each, DenseExpert) and each.space == base.space]
    return Choices(
        build_router(library, base_fingerprint=base.fingerprint, experts=experts, lexical=first_lexical(experts)),
        build_router(library, base_fingerprint=base.fingerprint, experts=sharing, may_fuse=False),
    )


class LivePilots(Poller):
    """A poller of a pilot library's folder that updates the choices of `routing`.

    Args:
        folder: of the library; it may not exist yet.
    """

    def __init__(self, folder: Path, routing: QueryRouting) -> None:
        super().__init__("a newer pilot library", POLL_EVERY_S, longest_s=POLL_EVERY_S)
        self.folder = folder
        self._routing = routing
        self._seen: Stamp | None = None  # of the library that was tried last
        self._refused: tuple[str, int, int] | None = None  # the manifest's, of a library that was refused and logged
        self._refreshing = asyncio.Lock()
        self.loads = 0
        self.refusals = 0
        self.last_error: str | None = None

    @property
    def version(self) -> str:
        """The version of the current library; `none` without one."""
        return self._routing.choices.version

    def open(self) -> None:
        """Load the current library; log it if there is none. Blocks.

        Raises:
            ArtifactError: it is damaged, or was made on another base.
        """
        self._seen = self._stamp()
        if self._seen is not None:
            self._routing.choices = self._load()
            self.loads += 1
            return
        logger.info(
            "there is no pilot library at %s yet: queries are routed as without one until `coe retrain` or "
            "`coe retrieval pilots` has made it",
            self.folder,
        )

    async def look(self) -> None:
        """Load a library that was written since the last look.

        An unusable one is rejected, and retried once one of its files changes: users copy folders, and the manifest may
        come before the arrays.
        """
        async with self._refreshing:
            stamp = await asyncio.to_thread(self._stamp)
            if stamp is None or stamp == self._seen:
                return
            self._seen = stamp
            try:
                choices = await asyncio.to_thread(self._load)
            except (RouterError, OSError, ValueError, KeyError) as error:
                self._refuse(stamp[0], error)
                return
            self._refused, self.last_error = None, None
            if choices.version == self.version:
                return
            # One assignment: a request that has begun keeps the choices it took.
            self._routing.choices = choices
            self.loads += 1
            logger.info("pilot library %s is loaded", choices.version)

    def _stamp(self) -> Stamp | None:
        """Return the stamp; None if there is no library, or while a writer replaces a file."""
        try:
            files = (self.folder / MANIFEST_FILE, *sorted(self.folder.glob(WEIGHTS_FILES)))
            stamps = [(file.name, file.stat()) for file in files]
        except OSError:
            return None
        return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stamps)

    def _load(self) -> Choices:
        """Load the library and make one test decision; may raise ArtifactError or ValueError."""
        library, experts = load_library(self.folder), self._routing.experts
        choices = make_choices(library, experts)
        nothing = np.zeros((1, self._routing.base.dim), dtype=np.float32)
        for router in choices:
            router.choose(nothing)
        if first_lexical(experts) is not None and plain_column(library.arms) is None:
            logger.warning(
                "pilot library %s was made without the fusion by which base serves now: where no labelled query is "
                "near, base searches alone until `coe retrain` or `coe retrieval pilots` has measured it",
                library.manifest.version,
            )
        return choices

    def _refuse(self, manifest: tuple[str, int, int], error: Exception) -> None:
        """Count and log a rejected library once for each manifest."""
        self.last_error = str(error) if isinstance(error, RouterError) else f"{type(error).__name__} while loading"
        if manifest == self._refused:
            return
        self._refused = manifest
        self.refusals += 1
        logger.error("a pilot library is refused, %s keeps serving: %s", self.version, self.last_error)
