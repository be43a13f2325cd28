"""Whether a candidate router may replace the live one. Pure: it sees values, not routers.

Three comparisons, each a paired difference (candidate - live): category accuracy on labelled queries and reward on a
part of the log (doubly robust), both held out from both routers, and the score on graded outcomes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from router.types import Metric

MIN_EFFECTIVE_DECISIONS = 20.0
"""Below this effective sample the log's estimate is not concluded from (ours)."""

MAX_UNSUPPORTED = 0.05
"""Largest share of the changed queries whose new expert the log's router could not have chosen, for the log to decide:
there is no reward to judge those by (ours)."""

COST_TOLERANCE = 0.01
"""Relative rise of the mean cost that counts as none: a choice per query moves it a little from fit to fit (ours)."""


class Verdict(StrEnum):
    """What the gate says."""

    PROMOTE = "promote"
    DECLINE = "decline"
    NEED_MORE = "need more"


@dataclass(frozen=True)
class Comparison:
    """One paired comparison.

    `effective_n` is the effective sample size, the plain one but for the log. `unsupported` is the share of the log's
    changed queries that only a model can judge.
    """

    name: str
    live: Metric
    candidate: Metric
    difference: Metric
    effective_n: float
    unsupported: float = 0.0

    @property
    def low(self) -> float:
        return self.difference.interval.low if self.difference.interval else -math.inf

    @property
    def high(self) -> float:
        return self.difference.interval.high if self.difference.interval else math.inf

    @property
    def change(self) -> str:
        """The difference in words."""
        return f"{self.name} changes by {self.difference.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"

    @property
    def can_decide(self) -> bool:
        return self.effective_n >= MIN_EFFECTIVE_DECISIONS and self.unsupported <= MAX_UNSUPPORTED


@dataclass(frozen=True)
class Terms:
    """What is demanded: `margin` is the largest tolerated loss of quality, `max_cost_rise` the largest relative rise of
    the mean cost of a query. `decisions_per_row`: decisions that the log grows by per row of its held-out part."""

    margin: float
    max_cost_rise: float = 0.0
    decisions_per_row: float = 1.0


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
    terms: Terms,
    cost_live_usd: float,
    cost_candidate_usd: float,
) -> GateResult:
    """Promotes when quality is shown to be no worse than the margin and cost is no higher.

    The log decides where it can, graded outcomes otherwise; whatever does not decide may still veto, by showing a loss
    larger than the margin.
    """
    compared = tuple(c for c in (accuracy, outcomes, log) if c is not None)
    for comparison in compared:
        if comparison.high < -terms.margin:
            loss = f"{comparison.name} falls by {-comparison.difference.value:.3f}"
            return GateResult(Verdict.DECLINE, f"{loss}, more than the margin {terms.margin:g}", compared)
    if cost_candidate_usd > cost_live_usd * (1 + terms.max_cost_rise + COST_TOLERANCE) + 1e-12:
        reason = f"mean cost would rise from {cost_live_usd:.3g} to {cost_candidate_usd:.3g} USD a query"
        return GateResult(Verdict.DECLINE, reason, compared)
    deciding = log if log is not None and log.can_decide else outcomes
    if deciding.low > -terms.margin:
        reason = f"{deciding.change}, and the lower bound is above -{terms.margin:g}"
        return GateResult(Verdict.PROMOTE, reason, compared)
    return needs_more(deciding, log, compared, terms)


def needs_more(
    deciding: Comparison, log: Comparison | None, compared: tuple[Comparison, ...], terms: Terms
) -> GateResult:
    """What is missing, in decisions of the log where that can be estimated."""
    reason = f"{deciding.change}, too uncertain for the margin {terms.margin:g}"
    if log is not None and log.unsupported > MAX_UNSUPPORTED:
        share = f"{log.unsupported:.0%} of the queries that would change hands"
        reason += f"; the log cannot judge {share}: their new expert was never tried there (policies: exploration)"
        return GateResult(Verdict.NEED_MORE, reason, compared)
    rows = more_needed(log or deciding, terms.margin)
    needed = None if rows is None else math.ceil(rows * terms.decisions_per_row)
    if needed is not None:
        reason += f": about {needed} more decisions are needed, answered and rated as now"
    return GateResult(Verdict.NEED_MORE, reason, compared, needed)


def more_needed(comparison: Comparison, margin: float) -> int | None:
    """How many more rows would let the comparison conclude if the difference stayed what it is; None if never.

    An interval narrows with the square root of n, so n must grow by (half-width / (difference + margin))^2; the
    effective sample grows with n.
    """
    room = comparison.difference.value + margin
    half_width = (comparison.high - comparison.low) / 2
    n = comparison.difference.n or 0
    if room <= 0 or not math.isfinite(half_width) or n == 0 or comparison.effective_n <= 0:
        return None
    growth = max((half_width / room) ** 2, MIN_EFFECTIVE_DECISIONS / comparison.effective_n)
    return max(1, math.ceil(n * (growth - 1)))
