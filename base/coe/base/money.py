"""An amount of money as pages and reports show it."""

from __future__ import annotations

import numpy as np

MINUS = "\u2212"


def money(usd: float) -> str:
    """An amount in USD: from a dollar on in cents, below it with three significant digits."""
    size = abs(usd)
    digits = f"{size:,.2f}" if size >= 1 else np.format_float_positional(size, precision=3, fractional=False, trim="-")
    return f"{MINUS if usd < 0 else ''}${digits}"
