"""`<data>/config/live.json`: the configuration in force, and the one before it.

experts.yaml is written by people only. What was put in force holds until the file changes. So a step back holds over a
restart, and an edit of the file after it takes effect.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from coe.base.errors import ConfigError
from coe.base.whole_files import locked, write_whole
from coe.fleet.router_registry import LOCK_FILE
from coe.router.config.composition import CoeConfig, config_text, parse_text
from coe.router.live_pointer import LIVE_FILE
from coe.router.types import Record

CONFIG_FOLDER = "config"


class InForce(Record):
    """The configuration in force. Gateways that run take it when `number` has grown."""

    number: int = Field(ge=1, description="grows with each change, but not with a start")
    text: str
    before: str | None = Field(description="the text that was in force before")
    started: str = Field(description="the text of the last start; what needs a restart is compared with it")
    file_hash: str = Field(description="SHA-256 of experts.yaml at that time")
    at: str = Field(description="ISO 8601, UTC")
    by: str


class Start(NamedTuple):
    """The configuration that a gateway starts with: its text, and that of experts.yaml where this is another."""

    config: CoeConfig
    text: str
    file_text: str


def read(data_dir: Path) -> InForce | None:
    """None before the first start. Raises ConfigError."""
    path = data_dir / CONFIG_FOLDER / LIVE_FILE
    try:
        return InForce.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise ConfigError(f"{path}: cannot be read; without it experts.yaml is in force: delete it") from error


def current(data_dir: Path) -> InForce:
    """Raises ConfigError also before the first start."""
    found = read(data_dir)
    if found is None:
        raise ConfigError(f"{data_dir / CONFIG_FOLDER}: no gateway has started with this data folder")
    return found


def parsed(text: str, path: Path) -> CoeConfig:
    """A text that is or was in force; `path` is experts.yaml."""
    return parse_text(text, file=f"{CONFIG_FOLDER}/{LIVE_FILE}", folder=path.parent)


def text_before(found: InForce) -> str:
    """The text that a step back puts in force. Raises ConfigError."""
    if found.before is None:
        raise ConfigError("no configuration was in force before this one, so there is nothing to go back to")
    return found.before


def find_start(path: Path, data_dir: Path) -> Start:
    """Finds what a gateway starts with: the text in force if the file is as it was then, otherwise the file."""
    file_text, found = config_text(path), read(data_dir)
    if found is None or found.file_hash != hash_of(file_text) or found.text == file_text:
        return Start(parse_text(file_text, file=str(path)), file_text, file_text)
    return Start(parsed(found.text, path), found.text, file_text)


def put(data_dir: Path, text: str, file_text: str, by: str) -> InForce:
    """Puts a text in force that was checked, until experts.yaml is another than `file_text`. Raises ConfigError."""
    return write(data_dir, text, file_text, by, is_start=False)


def put_start(data_dir: Path, start: Start) -> InForce:
    """Notes a start. Other gateways that run do not follow it. Raises ConfigError."""
    return write(data_dir, start.text, start.file_text, "start", is_start=True)


def write(data_dir: Path, text: str, file_text: str, by: str, *, is_start: bool) -> InForce:
    folder, now = data_dir / CONFIG_FOLDER, datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with locked(folder / LOCK_FILE):
            found = read(data_dir)
            if found is None:
                after = InForce(number=1, text=text, before=None, started=text, file_hash="", at=now, by=by)
            elif found.text == text:  # gateways that refused it try again
                after = found
            else:
                after = found.model_copy(update={"text": text, "before": found.text, "at": now, "by": by})
            number, started = (after.number, text) if is_start else (after.number + 1, after.started)
            update = {"number": number, "started": started, "file_hash": hash_of(file_text)}
            after = after.model_copy(update=update)
            write_whole(folder / LIVE_FILE, after.model_dump_json(indent=1))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from error
    return after


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
