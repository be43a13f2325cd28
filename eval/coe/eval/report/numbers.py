"""Figures as a report prints them: scores as percent, differences as points (percent), a true minus sign."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial

from coe.base.money import MINUS, money


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share or score as in 61.5%, without a minus zero; an unknown one (None) is empty."""
    if share is None:
        return ""
    text = f"{100 * share + 0.0:.{digits}f}%"
    return text.lstrip("-") if not text.strip("-0.%") else text.replace("-", MINUS)


whole_percent = partial(percent, digits=0)


def points(difference: float) -> str:
    """Format a difference of scores with its sign, as in +4.2."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def counted(n: int, one: str, several: str) -> str:
    """Format a count with its noun, singular or plural."""
    return f"{n:,} {one if n == 1 else several}"


def dollars(amount: float | None) -> str:
    """Format USD per query as USD per 1,000 queries."""
    return "unknown" if amount is None else money(1000 * amount)


def billions(amount: float | None) -> str:
    """Format billions of parameters as in 0.14B; None is `unknown`."""
    return "unknown" if amount is None else f"{amount:.2f}B" if amount < 1 else f"{amount:.1f}B"


def milliseconds(value: float | None) -> str:
    """Format milliseconds, in seconds from 1,000 up; None is empty."""
    if value is None:
        return ""
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"


def moment(at: float) -> str:
    """Format Unix seconds as a UTC date and time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def shares(found: Mapping[str, float]) -> str:
    """Format the first three of shares by name."""
    return ", ".join(f"{name} {share:.0%}" for name, share in list(found.items())[:3])
