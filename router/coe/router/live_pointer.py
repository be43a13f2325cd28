"""`routers/live.json`: which router is live, which one is on trial, and how a share of the traffic goes to it.

The file is replaced atomically, so a reader sees the old state or the new one, never half of either;
`fleet/router_registry.py` replaces it. Checks that experts.yaml asks for nothing that the live router does not know
are here, too; they read its manifest alone.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from coe.base.errors import ArtifactError, ConfigError
from coe.router.config.composition import CoeConfig
from coe.router.config.policy import UNKNOWN_LANGUAGES
from coe.router.model_files.artifact import RouterManifest, read_manifest
from coe.router.types import GENERAL, Record

ROUTERS_FOLDER = "routers"
LIVE_FILE = "live.json"
KEPT_WITHDRAWALS = 20

Version = Annotated[str, Field(pattern="^[0-9A-Za-z]+$")]
"""Name of a router's folder, which is never a path that leads elsewhere."""


class CanaryTerms(Record):
    """Terms of a trial in which a candidate serves.

    An e-process at level `alpha` over the whole trial withdraws it in two cases: its rewards lie more than `margin`
    below the live router's, or it fails more than `error_margin` more often.
    """

    share: float = Field(default=0.05, ge=0.0001, le=0.9)  # of the conversations, that it serves
    margin: float = Field(default=0.05, ge=0, le=0.99)  # loss of mean reward that is tolerated
    error_margin: float = Field(default=0.01, ge=0, le=0.99)  # rise of the share of failures that is tolerated
    alpha: float = Field(default=0.05, ge=0.0001, le=0.5)  # chance of withdrawing one that keeps to both margins


class Trial(CanaryTerms):
    """A candidate that serves a share of the conversations beside the live router."""

    version: Version
    started_at: float = Field(description="Unix seconds; also distinguishes two trials of one version")

    def takes(self, unit: str) -> bool:
        """Return whether a conversation belongs to the candidate's share, by a hash, so that every replica agrees."""
        digest = hashlib.sha256(f"{self.version}:{self.started_at}:{unit}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


class Withdrawal(Record):
    """A candidate that was taken back, and why."""

    version: str
    at: str = Field(description="ISO 8601, UTC")
    reason: str


class LivePointer(Record):
    """Pointer to the live router: since when, those that were live before it (newest first), and what is on trial."""

    version: Version
    promoted_at: str = Field(description="ISO 8601, UTC")
    history: tuple[Version, ...] = ()
    trial: Trial | None = None
    withdrawn: tuple[Withdrawal, ...] = Field(default=(), description="newest first")

    def part_of(self, version: str) -> str:
        """Return the part that a version has now: live, canary with its share, or an empty text."""
        if self.version == version:
            return "live"
        if self.trial is None or self.trial.version != version:
            return ""
        return f"canary {self.trial.share:.1%}"

    def without_trial(self, at: str, reason: str) -> LivePointer:
        """Return the same live router with the trial ended and kept on record."""
        if self.trial is None:
            return self
        gone = Withdrawal(version=self.trial.version, at=at, reason=reason)
        return self.model_copy(update={"trial": None, "withdrawn": (gone, *self.withdrawn)[:KEPT_WITHDRAWALS]})


def read_pointer(root: Path) -> LivePointer | None:
    """Read the live pointer; None before the first promotion. It raises ArtifactError if the file is damaged."""
    path = root / LIVE_FILE
    try:
        return LivePointer.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{path}: is not a live pointer; `coe router VERSION --promote` writes a new one"
        ) from error


def required_pointer(root: Path) -> LivePointer:
    """Read the live pointer, or raise ArtifactError if there is none yet, or the file is damaged."""
    pointer = read_pointer(root)
    if pointer is None:
        raise ArtifactError(f"{root / LIVE_FILE}: there is no live router yet; `coe up` or `coe train` makes the first")
    return pointer


def live_manifest(data_dir: Path) -> RouterManifest | None:
    """Return the live router's manifest; None if none can be read, which a gateway reports at its start."""
    root = data_dir / ROUTERS_FOLDER
    try:
        pointer = read_pointer(root)
        return None if pointer is None else read_manifest(root / pointer.version)
    except ArtifactError:
        return None


def check_categories(config: CoeConfig, manifest: RouterManifest) -> None:
    """Check that experts.yaml has every category of the router, or raise ConfigError if it lacks some."""
    lacking = sorted(set(manifest.categories) - set(config.learned_categories))
    if lacking:
        raise ConfigError(
            f"router {manifest.version} names categories that experts.yaml lacks: {', '.join(lacking)}; "
            "add them or run `coe train`"
        )


def pin_problems(config: CoeConfig, manifest: RouterManifest) -> list[str]:
    """Return the pins that a router cannot keep, a sentence each: it lacks the category or evidence on the expert."""
    problems = []
    for name, policy in config.policies.items():
        for category, expert in policy.pins.items():
            where = f"policies.{name}.pins.{category}"
            if expert not in manifest.experts:
                problems.append(
                    f"{where}: router {manifest.version} has not measured '{expert}', so the pin cannot hold: take it "
                    f"out until `coe experts probe {expert} --promote` has put the expert on the map"
                )
            if category not in (*manifest.categories, GENERAL, UNKNOWN_LANGUAGES):
                problems.append(
                    f"{where}: router {manifest.version} does not know the category '{category}', so the pin cannot "
                    "hold: take it out until `coe train` has learned the category"
                )
    return problems


def category_warnings(config: CoeConfig, manifest: RouterManifest) -> list[str]:
    """Return a warning for categories of experts.yaml that get no queries, because the router does not know them."""
    unknown = [name for name in config.learned_categories if name not in manifest.categories]
    if not unknown:
        return []
    return [
        f"categories: router {manifest.version} does not know {', '.join(unknown)}; their queries go elsewhere until "
        "`coe train` has learned them"
    ]
