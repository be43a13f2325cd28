"""Periods of time as text: `90s`, `30m`, `1h`, `1.5h`, `30d`, `2w`."""

from __future__ import annotations

import re

from coe.base.errors import ConfigError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
MOST_DAYS = 99_999
"""Largest period in days, about 270 years."""


def parse_period(where: str, value: str) -> float:
    """Return the seconds of a period.

    Raises:
        ConfigError: the text is not a period; the message starts with `where`.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", value.strip())
    period_s = 0.0 if found is None else float(found[1]) * UNITS[found[2]]
    if not 0 < period_s <= MOST_DAYS * UNITS["d"]:
        raise ConfigError(
            f"{where}: '{value}' is not a period; allowed: a number above 0 with {', '.join(UNITS)}, such as 1h, "
            f"up to {MOST_DAYS}d"
        )
    return period_s
