"""Periods as people write them: `90s`, `30m`, `1h`, `1.5h`, `1d`."""

from __future__ import annotations

import re

from base.errors import ConfigError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_PERIOD_S = 365 * UNITS["d"]


def parse_period(where: str, value: str) -> float:
    """Seconds. Raises ConfigError, which names `where`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value.strip())
    period_s = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
    if not 0 < period_s <= MAX_PERIOD_S:
        raise ConfigError(
            f"{where}: '{value}' is not a period; allowed: a number above 0 with s, m, h or d, such as 1h, up to 365d"
        )
    return period_s
