"""Whether a candidate router may replace the live one. Pure: it sees values, not routers.

Three comparisons, each a paired difference (candidate - live): category accuracy on labelled queries and reward on a
part of the log (doubly robust), both held out from both routers, and the score on the graded outcomes that both were
measured on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from router.types import Metric

MIN_EFFECTIVE_DECISIONS = 20.0
"""Below this effective sample the log's estimate is not concluded from (ours)."""


class Verdict(StrEnum):
    """What the gate says."""

    PROMOTE = "promote"
    DECLINE = "decline"
    NEED_MORE = "need more"


@dataclass(frozen=True)
class Comparison:
    """One paired comparison. `effective_n` is the effective sample size, the plain one but for the log."""

    name: str
    live: Metric
    candidate: Metric
    difference: Metric
    effective_n: float

    @property
    def low(self) -> float:
        return self.difference.interval.low if self.difference.interval else -math.inf

    @property
    def high(self) -> float:
        return self.difference.interval.high if self.difference.interval else math.inf


@dataclass(frozen=True)
class GateResult:
    """The verdict with the one sentence that explains it; `more_decisions` estimates how many it still needs."""

    verdict: Verdict
    reason: str
    comparisons: tuple[Comparison, ...]
    more_decisions: int | None = None


def judge(
    accuracy: Comparison,
    outcomes: Comparison,
    log: Comparison | None,
    *,
    margin: float,
    cost_live_usd: float,
    cost_candidate_usd: float,
) -> GateResult:
    """Promotes when quality is shown to be no worse than `margin` and cost is no higher.

    The log decides where it has enough effective decisions, graded outcomes otherwise; whatever does not decide may
    still veto, by showing a loss larger than the margin.
    """
    compared = tuple(c for c in (accuracy, outcomes, log) if c is not None)
    for comparison in compared:
        if comparison.high < -margin:
            return GateResult(
                Verdict.DECLINE,
                f"{comparison.name} falls by {-comparison.difference.value:.3f}, more than the margin {margin:g}",
                compared,
            )
    if cost_candidate_usd > cost_live_usd * (1 + 1e-6) + 1e-12:
        reason = f"mean cost would rise from {cost_live_usd:.3g} to {cost_candidate_usd:.3g} USD a query"
        return GateResult(Verdict.DECLINE, reason, compared)
    log_decides = log is not None and log.effective_n >= MIN_EFFECTIVE_DECISIONS
    deciding = log if log is not None and log_decides else outcomes
    if deciding.low > -margin:
        return GateResult(
            Verdict.PROMOTE,
            f"{deciding.name} changes by {deciding.difference.value:+.3f} [{deciding.low:+.3f}, {deciding.high:+.3f}], "
            f"and the lower bound is above -{margin:g}",
            compared,
        )
    needed = more_needed(deciding, margin)
    return GateResult(
        Verdict.NEED_MORE,
        f"{deciding.name} changes by {deciding.difference.value:+.3f} [{deciding.low:+.3f}, {deciding.high:+.3f}], "
        f"too uncertain for the margin {margin:g}"
        + (f": about {needed} more decisions with feedback are needed" if needed else ""),
        compared,
        needed,
    )


def more_needed(comparison: Comparison, margin: float) -> int | None:
    """How many more rows would lift the lower bound above -margin if the difference stayed what it is; None if never.

    An interval narrows with the square root of n, so n must grow by (half-width / (difference + margin))^2.
    """
    room = comparison.difference.value + margin
    half_width = (comparison.high - comparison.low) / 2
    n = comparison.difference.n or 0
    if room <= 0 or not math.isfinite(half_width) or n == 0:
        return None
    return max(1, math.ceil(n * ((half_width / room) ** 2 - 1)))
