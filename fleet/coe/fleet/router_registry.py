"""The trained routers of a data folder, `routers/<version>/`, and changes of the pointer to the live one.

A change holds a lock on the folder while it reads and writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coe.base.errors import ArtifactError, ConfigError, RouterError, allowed_values
from coe.base.whole_files import locked, write_whole
from coe.router.live_pointer import LIVE_FILE, LivePointer, Trial, read_pointer
from coe.router.model_files.artifact import RouterManifest, load_artifact, read_manifest

LOCK_FILE = ".live.lock"
ROUNDS_FILE = "rounds.jsonl"
KEPT_ROUNDS = 20

PromotionGuard = Callable[[], AbstractContextManager[None]]
"""Makes a context manager that is held around the moment of promotion; it raises when another process may promote now.
"""

logger = logging.getLogger(__name__)


class LiveChangedError(RouterError):
    """Another router is live than the one that was to be replaced."""


@dataclass(frozen=True)
class Registry:
    """Routers under one root folder."""

    root: Path

    def folders(self) -> tuple[Path, ...]:
        if not self.root.is_dir():
            return ()
        return tuple(sorted(p for p in self.root.iterdir() if p.is_dir() and not p.name.startswith(".")))

    def versions(self) -> tuple[RouterManifest, ...]:
        """Manifests of every intact router, oldest first."""
        manifests = [manifest for manifest, _ in map(inspect, self.folders()) if manifest is not None]
        return tuple(sorted(manifests, key=lambda manifest: manifest.created_at))

    def damaged(self) -> dict[str, str]:
        """Folders that hold no intact router, with what is wrong."""
        return {folder.name: problem for folder in self.folders() for _, problem in [inspect(folder)] if problem}

    def folder(self, version: str) -> Path:
        """Folder of a version, given whole or by an unambiguous beginning.

        Raises:
            ConfigError: no such version, or several begin so.
            ArtifactError: the only one that begins so is damaged.
        """
        known = [m.version for m in self.versions()]
        matches = [name for name in known if name.startswith(version)] if version else []
        damaged = [problem for name, problem in self.damaged().items() if version and name.startswith(version)]
        if not matches and len(damaged) == 1:
            raise ArtifactError(damaged[0])
        if len(matches) != 1:
            problem = "unknown" if not matches else "ambiguous"
            raise ConfigError(f"{problem} router version '{version}'{allowed_values(version, known)}")
        return self.root / matches[0]

    def live(self) -> LivePointer | None:
        """The live pointer; None before the first promotion. Raises ArtifactError when the pointer is damaged."""
        return read_pointer(self.root)

    def promote(self, version: str, now: datetime, *, instead_of: str | None = None) -> LivePointer:
        """Makes a version live after verifying every byte of it; a trial ends.

        Args:
            instead_of: the version that must be live until then; None: whichever is.

        Raises:
            ConfigError: there is no such version.
            ArtifactError: it is damaged.
            LiveChangedError: another version than `instead_of` is live.
        """
        folder = self.folder(version)
        load_artifact(folder)

        def change(before: LivePointer | None) -> LivePointer:
            if instead_of is not None and (before is None or before.version != instead_of):
                raise LiveChangedError(f"{before.version if before else 'no router'} became live")
            if before is None:
                return LivePointer(version=folder.name, promoted_at=now.isoformat())
            if before.version == folder.name:
                return before.without_trial(now.isoformat(), "the live router was promoted again")
            # A candidate that is promoted has not been withdrawn.
            other = before.trial is not None and before.trial.version != folder.name
            ended = before.without_trial(now.isoformat(), f"{folder.name} was promoted") if other else before
            history = (before.version, *(v for v in before.history if v not in (before.version, folder.name)))
            return LivePointer(
                version=folder.name, promoted_at=now.isoformat(), history=history, withdrawn=ended.withdrawn
            )

        return change_pointer(self.root, change, repairs=True)

    def try_out(self, trial: Trial) -> LivePointer:
        """Begins a trial of a version (given whole) after verifying it; a trial that runs is replaced.

        Raises:
            ConfigError: there is no live router, or it is the live one.
            ArtifactError: the candidate is damaged.
        """
        load_artifact(self.folder(trial.version))
        at = datetime.fromtimestamp(trial.started_at, UTC).isoformat()

        def change(before: LivePointer | None) -> LivePointer:
            if before is None:
                raise ConfigError(f"there is no live router to compare with; `coe router {trial.version} --promote`")
            if before.version == trial.version:
                raise ConfigError(f"router {trial.version} is live already, so there is nothing to try")
            return before.without_trial(at, "another trial began").model_copy(update={"trial": trial})

        return change_pointer(self.root, change)

    def rollback(self, now: datetime) -> LivePointer:
        """Ends the trial when one runs, else goes back to the router that was live before.

        Raises:
            ConfigError: there is neither.
            ArtifactError: the router to go back to is damaged.
        """

        def change(before: LivePointer | None) -> LivePointer:
            if before is not None and before.trial is not None:
                return before.without_trial(now.isoformat(), "withdrawn by hand")
            if before is None or not before.history:
                raise ConfigError("no router was live before this one, so there is nothing to go back to")
            load_artifact(self.root / before.history[0])
            update = {
                "version": before.history[0],
                "promoted_at": now.isoformat(),
                "history": before.history[1:],
            }
            return before.model_copy(update=update)

        return change_pointer(self.root, change)

    def rounds(self) -> list[Any]:
        """The last rounds of retraining, newest first; empty where none was kept."""
        try:
            lines = (self.root / ROUNDS_FILE).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in reversed(lines)]

    def last_round(self) -> tuple[float, str] | None:
        """Unix time and verdict of the last round; None where there is none that can be read."""
        try:
            return next(
                ((datetime.fromisoformat(each["at"]).timestamp(), str(each["verdict"])) for each in self.rounds()), None
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep_round(self, now: datetime, values: Mapping[str, object]) -> None:
        """Adds what a round of retraining compared and did."""
        kept = [{"at": now.isoformat(), **values}, *self.rounds()][:KEPT_ROUNDS]
        with locked(self.root / LOCK_FILE):
            write_whole(self.root / ROUNDS_FILE, "".join(json.dumps(each) + "\n" for each in reversed(kept)))


def inspect(folder: Path) -> tuple[RouterManifest | None, str]:
    """The manifest of a folder, or None with what is wrong with it."""
    try:
        return read_manifest(folder), ""
    except ArtifactError as error:
        return None, str(error)


def change_pointer(
    root: Path, change: Callable[[LivePointer | None], LivePointer], *, repairs: bool = False
) -> LivePointer:
    """Reads, changes and writes the pointer while no other process can.

    With `repairs` a damaged one counts as none, and one that stays the same is written all the same: its new time tells
    gateways to load again what they refused.

    Raises what `read_pointer` and `change` raise.
    """
    with locked(root / LOCK_FILE):
        try:
            before = read_pointer(root)
        except ArtifactError:
            if not repairs:
                raise
            before = None
        after = change(before)
        if after != before or repairs:
            write_whole(root / LIVE_FILE, json.dumps(after.model_dump(mode="json"), indent=1))
        return after


def withdraw(root: Path, trial: Trial, reason: str) -> bool:
    """Ends that very trial, and says so in the log; False when it had ended already. Raises ArtifactError, OSError."""
    was_running, at = False, datetime.now(UTC).isoformat()

    def end(before: LivePointer | None) -> LivePointer:
        nonlocal was_running
        if before is None:
            raise ArtifactError(f"{root / LIVE_FILE}: is gone, so there is no trial to end")
        was_running = before.trial == trial
        return before.without_trial(at, reason) if was_running else before

    change_pointer(root, end)
    if was_running:
        logger.error("router %s is withdrawn from its trial: %s", trial.version, reason)
    return was_running
