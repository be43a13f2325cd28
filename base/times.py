"""Times as people write them on a command line."""

from __future__ import annotations

from datetime import UTC, datetime

from base.errors import ConfigError


def unix_time(value: str, option: str) -> float:
    """Unix seconds of an ISO date or time, taken as UTC where it names no zone. Raises ConfigError, naming `option`."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise ConfigError(
            f"{option}: '{value}' is not an ISO date or time such as 2026-11-25 or 2026-11-25T08:00"
        ) from error
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
