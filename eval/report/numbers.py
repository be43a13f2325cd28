"""Figures as a report prints them: scores as percent, differences as points (percent), a true minus sign."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from base.money import MINUS, money
from eval.metrics.intervals import Estimate, Gap, Range
from eval.report.page import Cell
from router.types import Interval, Metric


def percent(share: float | None, digits: int = 1) -> str:
    """A share or score such as 61.5%, without a minus zero; nothing where it is unknown."""
    if share is None:
        return ""
    text = f"{100 * share + 0.0:.{digits}f}%"
    return text.lstrip("-") if not text.strip("-0.%") else text.replace("-", MINUS)


whole_percent = partial(percent, digits=0)


def percent_range(interval: Range) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}"


def rated(found: Gap) -> str:
    """A share or score with its interval, such as 61.5% (58.0% to 65.0%)."""
    return f"{percent(found.value)} ({percent_range(found.interval)})"


def points(difference: float) -> str:
    """A difference of scores with its sign, such as +4.2."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def points_range(interval: Range) -> str:
    return f"{points(interval[0])} to {points(interval[1])}"


def tone(interval: Range) -> str:
    """The tone of a difference whose interval leaves zero out."""
    return "good" if interval[0] > 0 else "bad" if interval[1] < 0 else ""


def cell_of(
    found: Estimate | Gap | Metric | None,
    words: Callable[[float], str] = percent,
    unknown: str = "",
    *,
    is_difference: bool = False,
) -> Cell:
    """A figure above its interval, if it has one; a difference with its tone."""
    if found is None or found.interval is None:
        return Cell(unknown if found is None else words(found.value))
    interval = found.interval
    ends = (interval.low, interval.high) if isinstance(interval, Interval) else interval
    return Cell(words(found.value), f"{words(ends[0])} to {words(ends[1])}", tone(ends) if is_difference else "")


def counted(n: int, one: str, several: str) -> str:
    return f"{n:,} {one if n == 1 else several}"


def number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def dollars(amount: float | None) -> str:
    """USD per query as USD per 1,000 queries."""
    return "unknown" if amount is None else money(1000 * amount)


def billions(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:.2f}B" if amount < 1 else f"{amount:.1f}B"


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def microseconds(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} \u00b5s"


def milliseconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"
