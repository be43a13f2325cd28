"""The trained routers of a data folder: `routers/<version>/` and the pointer `routers/live.json`.

The pointer is replaced atomically, so a reader sees the old live router or the new one, never half of either.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from router.artifact import load_artifact, read_manifest
from router.errors import ArtifactError, ConfigError, allowed_values
from router.types import Record, RouterManifest

LIVE_FILE = "live.json"


class LivePointer(Record):
    """Which router is live, since when, and the ones that were live before it, newest first."""

    version: str
    promoted_at: str = Field(description="ISO 8601, UTC")
    history: tuple[str, ...] = ()


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
        """
        known = [m.version for m in self.versions()]
        matches = [name for name in known if name.startswith(version)] if version else []
        if len(matches) != 1:
            problem = "unknown" if not matches else "ambiguous"
            raise ConfigError(f"{problem} router version '{version}'{allowed_values(version, known)}")
        return self.root / matches[0]

    def live(self) -> LivePointer | None:
        """The live pointer; None before the first promotion. Raises ArtifactError when the pointer is damaged."""
        path = self.root / LIVE_FILE
        try:
            return LivePointer.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ArtifactError(
                f"{path}: is not a live pointer; `coe router promote VERSION` writes a new one"
            ) from error

    def promote(self, version: str, now: datetime) -> LivePointer:
        """Makes a version live after verifying every byte of it. Raises ConfigError, ArtifactError."""
        folder = self.folder(version)
        load_artifact(folder)
        before = self.live()
        history: tuple[str, ...] = ()
        if before is not None:
            if before.version == folder.name:
                return before
            history = (before.version, *(v for v in before.history if v not in (before.version, folder.name)))
        return self.write(LivePointer(version=folder.name, promoted_at=now.isoformat(), history=history))

    def rollback(self, now: datetime) -> LivePointer:
        """Goes back to the router that was live before. Raises ConfigError when there is none."""
        before = self.live()
        if before is None or not before.history:
            raise ConfigError("no router was live before this one, so there is nothing to go back to")
        load_artifact(self.root / before.history[0])
        return self.write(
            LivePointer(version=before.history[0], promoted_at=now.isoformat(), history=before.history[1:])
        )

    def write(self, pointer: LivePointer) -> LivePointer:
        self.root.mkdir(parents=True, exist_ok=True)
        staged = self.root / f".{LIVE_FILE}.{os.getpid()}"
        staged.write_text(json.dumps(pointer.model_dump(mode="json"), indent=1), encoding="utf-8")
        staged.replace(self.root / LIVE_FILE)
        return pointer

    def adopt(self, folder: Path) -> str:
        """Copies an artifact from elsewhere into the registry; returns its version. Raises ArtifactError."""
        version = load_artifact(folder).manifest.version
        if not (self.root / version).exists():
            staged = self.root / f".adopt-{version}-{os.getpid()}"
            shutil.copytree(folder, staged)
            staged.replace(self.root / version)
        return version


def inspect(folder: Path) -> tuple[RouterManifest | None, str]:
    """The manifest of a folder, or None with what is wrong with it."""
    try:
        return read_manifest(folder), ""
    except ArtifactError as error:
        return None, str(error)
