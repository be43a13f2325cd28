"""The pilot library in force, replaced as a whole when another one is written into its folder."""

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

Stamp = tuple[tuple[str, int, int], ...]
"""Name, time of writing (ns) and size in bytes of a library's files, the manifest first."""

logger = logging.getLogger(__name__)


def make_choices(library: PilotLibrary | None, experts: Mapping[str, RetrievalExpert]) -> Choices:
    """Both choices from one library; without one all goes to base, fused with BM25 if that is there.

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
    """Follows the folder of a pilot library, and gives `routing` its choices.

    Args:
        folder: of the library; there may be none yet.
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
        """Of the library in force; `none` without one."""
        return self._routing.choices.version

    def open(self) -> None:
        """Takes the library that is there now, and says so when there is none. Blocks.

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
        """Takes over a library that was written since the last look. One that cannot be used is refused, and tried
        again once a file of it changes: people copy folders, and the manifest may come before the arrays."""
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
        """Returns None while there is no library, or while a writer takes a file away."""
        try:
            files = (self.folder / MANIFEST_FILE, *sorted(self.folder.glob(WEIGHTS_FILES)))
            stamps = [(file.name, file.stat()) for file in files]
        except OSError:
            return None
        return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stamps)

    def _load(self) -> Choices:
        """Reads the library and lets it decide once. Raises ArtifactError, and ValueError where it cannot decide."""
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
        """Counts and logs it once for each manifest."""
        self.last_error = str(error) if isinstance(error, RouterError) else f"{type(error).__name__} while loading"
        if manifest == self._refused:
            return
        self._refused = manifest
        self.refusals += 1
        logger.error("a pilot library is refused, %s keeps serving: %s", self.version, self.last_error)
