"""The log of a running program: `coe up`, which draws on the terminal, to a file; others to stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from coe.base.errors import ConfigError
from coe.base.json_text import to_json
from coe.base.visible_text import visible, visible_line

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
FILE_NAME = "coe.log"
MAX_BYTES = 8 * 1024 * 1024

logger = logging.getLogger(__name__)


class SafeFormatter(logging.Formatter):
    """Messages hold words of experts, servers and files, which must neither drive a terminal nor forge a line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = visible_line(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))  # a traceback keeps its lines


class JsonFormatter(logging.Formatter):
    """A JSON object a line; what a record carries as `fields` is a part of it."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return visible(to_json(line).decode())


def log_to_file(data_dir: Path, level: str, style: str = "text") -> None:
    """Into `<data>/coe.log`, with one older file next to it. Raises ConfigError when the folder cannot be written."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = RotatingFileHandler(data_dir / FILE_NAME, maxBytes=MAX_BYTES, backupCount=1, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"COE_DATA_DIR: {data_dir} cannot be written ({error.strerror})") from error
    log_to(handler, level, style)


def log_to_stderr(level: str, style: str = "text") -> None:
    """Logs to standard error."""
    log_to(logging.StreamHandler(), level, style)


def log_to(handler: logging.Handler, level: str, style: str) -> None:
    handler.setFormatter(JsonFormatter() if style == "json" else SafeFormatter(FORMAT))
    logging.basicConfig(level=level.upper(), handlers=[handler])


class LogReporter:
    """Reports the steps of a start to the log."""

    @contextmanager
    def step(self, title: str) -> Iterator[Callable[[str], None]]:
        outcomes, begin = [title], time.perf_counter()
        yield outcomes.append
        logger.info("%s (%.1f s)", outcomes[-1], time.perf_counter() - begin)
