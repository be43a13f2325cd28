"""Amounts of money as pages and reports show them."""

from __future__ import annotations

import numpy as np

MINUS = "\u2212"


def money(usd: float) -> str:
    """Format an amount in USD: to the cent from one dollar up, else with three significant digits."""
    size = abs(usd)
    digits = f"{size:,.2f}" if size >= 1 else np.format_float_positional(size, precision=3, fractional=False, trim="-")
    return f"{MINUS if usd < 0 else ''}${digits}"
