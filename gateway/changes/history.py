"""`<data>/config`: copies of the configurations that were in force, and `live.json`, which says which one is.

experts.yaml is written by people only. A copy is in force until the file changes: so a rollback outlives a restart, and
whoever edits the file after it gets what the file says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from base.errors import ConfigError
from base.whole_files import locked, write_whole
from fleet.router_registry import LOCK_FILE
from router.config import CoeConfig, config_text, parse_text
from router.live_pointer import LIVE_FILE
from router.types import Record

CONFIG_FOLDER = "config"
KEPT = 50

Note = Callable[[str, str, str, str, str], None]


class InForce(Record):
    """The copy in force. Gateways that run take it when `change` has grown; what needs a restart is compared with
    `started`, the copy that the last start took."""

    number: int = Field(ge=1)
    change: int = Field(ge=0)
    started: int = Field(ge=1)
    file_hash: str = Field(description="SHA-256 of experts.yaml at that time")
    at: str = Field(description="ISO 8601, UTC")
    by: str
    before: tuple[int, ...] = Field(default=(), description="copies that `rollback` goes back to, newest first")


class Start(NamedTuple):
    """The configuration that a gateway starts with: its text, and that of experts.yaml where this is another."""

    config: CoeConfig
    text: str
    file_text: str


class History:
    """The copies of a data folder. Every method raises ConfigError where a file cannot be read or written.

    Args:
        note: writes down who did what to which of them: actor, action, subject, before, after.
    """

    def __init__(self, data_dir: Path, note: Note | None = None) -> None:
        self.root, self._note = data_dir / CONFIG_FOLDER, note

    def read(self) -> InForce | None:
        """None before the first start."""
        path = self.root / LIVE_FILE
        try:
            return InForce.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{path}: cannot be read; without it experts.yaml is in force: delete it") from error

    def current(self) -> InForce:
        """Raises ConfigError also before the first start."""
        found = self.read()
        if found is None:
            raise ConfigError(f"{self.root}: no gateway has started with this data folder")
        return found

    def text(self, number: int) -> str:
        return config_text(self.path(number))

    def config(self, number: int) -> CoeConfig:
        return parse_text(self.text(number), file=str(self.path(number)))

    def path(self, number: int) -> Path:
        return self.root / f"{number:04}.yaml"

    def start(self, path: Path) -> Start:
        """Finds what a gateway starts with: the copy in force if the file is as it was then, otherwise the file."""
        text, found = config_text(path), self.read()
        if found is None or found.file_hash != hash_of(text) or (copy := self.text(found.number)) == text:
            return Start(parse_text(text, file=str(path)), text, text)
        return Start(parse_text(copy, file=str(self.path(found.number))), copy, text)

    def started(self, start: Start) -> InForce:
        """Notes a start. Other gateways that run do not follow it."""

        def change(before: InForce | None) -> InForce:
            after = self._put(before, start.text, start.file_text, "start")
            return after.model_copy(update={"started": after.number})

        return self._change(change)[1]

    def apply(self, text: str, file_text: str, by: str) -> InForce:
        """Puts a text in force that was checked, until experts.yaml is another than `file_text`."""
        return self._noted("apply", by, lambda before: next_change(self._put(before, text, file_text, by)))

    def rollback(self, found: InForce, file_text: str, by: str) -> InForce:
        """Puts the copy before `found` in force. Raises ConfigError where there is none, or `found` is not in force."""

        def change(before: InForce | None) -> InForce:
            if before != found:
                raise ConfigError("another configuration was put in force just now; look at it and try again")
            update = {"number": previous(found), "before": found.before[1:], "file_hash": hash_of(file_text)}
            return next_change(found.model_copy(update=update | {"at": now(), "by": by}))

        return self._noted("rollback", by, change)

    def _noted(self, action: str, by: str, change: Callable[[InForce | None], InForce]) -> InForce:
        """Changes what is in force, and notes it. Raises also StoreError: it is in force, and could not be noted."""
        before, after = self._change(change)
        if self._note is not None:
            self._note(by, action, "configuration", "" if before is None else str(before.number), str(after.number))
        return after

    def _put(self, before: InForce | None, text: str, file_text: str, by: str) -> InForce:
        """The state with a text in force, which is written down unless it is already."""
        if before is not None and self.text(before.number) == text:
            return before.model_copy(update={"file_hash": hash_of(file_text)})
        number = 1 + max((int(path.stem) for path in self.root.glob("[0-9]*.yaml")), default=0)
        write_whole(self.path(number), text)
        earlier = () if before is None else (before.number, *before.before)[:KEPT]
        return InForce(
            number=number,
            change=0 if before is None else before.change,
            started=number if before is None else before.started,
            file_hash=hash_of(file_text),
            at=now(),
            by=by,
            before=earlier,
        )

    def _change(self, change: Callable[[InForce | None], InForce]) -> tuple[InForce | None, InForce]:
        """The state before, and the one that is in force now."""
        try:
            with locked(self.root / LOCK_FILE):
                before = self.read()
                after = change(before)
                if after != before:
                    write_whole(self.root / LIVE_FILE, json.dumps(after.model_dump(mode="json"), indent=1))
        except OSError as error:
            raise ConfigError(f"{self.root}: cannot be written ({error.strerror})") from error
        return before, after


def previous(found: InForce) -> int:
    """The copy that a rollback goes back to. Raises ConfigError."""
    if not found.before:
        raise ConfigError("no configuration was in force before this one, so there is nothing to go back to")
    return found.before[0]


def next_change(found: InForce) -> InForce:
    return found.model_copy(update={"change": found.change + 1})


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
