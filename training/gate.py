"""Gate of a candidate router: whether it may replace the live one. Pure: it sees values, not routers.

Paired differences (candidate - live): category accuracy on labelled queries and reward on a part of the log (doubly
robust), both held out from both routers, and the score on graded outcomes. One rule: whatever shows a loss beyond the
margin vetoes; what the candidate did not learn from decides, the log where it can, graded outcomes otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from router.config import GAIN_FOR_DOUBLE_COST
from router.types import Metric, Record, Verdict

MIN_EFFECTIVE_DECISIONS = 20.0
"""Below this effective sample the log's estimate is not concluded from (ours)."""

MAX_UNSUPPORTED = 0.05
"""Largest share of the changed queries whose new expert the log's router could not have chosen, for the log to decide:
no reward judges those (ours)."""

COST_TOLERANCE = 0.01
"""Relative rise of the mean cost that counts as none: a choice per query moves it a little from fit to fit (ours)."""


@dataclass(frozen=True)
class Comparison:
    """One paired comparison.

    `effective_n` is the effective sample size, the plain one but for the log. `unsupported` is the share of the log's
    changed queries that only a model can judge. `lacking` says why the comparison may not decide; empty if it may.
    """

    name: str
    live: Metric
    candidate: Metric
    difference: Metric
    effective_n: float
    unsupported: float = 0.0
    lacking: str = ""

    @property
    def low(self) -> float:
        return self.difference.interval.low if self.difference.interval else -math.inf

    @property
    def high(self) -> float:
        return self.difference.interval.high if self.difference.interval else math.inf

    @property
    def change(self) -> str:
        """The difference in words."""
        interval = f" [{self.low:+.3f}, {self.high:+.3f}]" if self.difference.interval else ""
        return f"{self.name} changes by {self.difference.value:+.3f}{interval}"

    @property
    def can_decide(self) -> bool:
        is_thick = self.effective_n >= MIN_EFFECTIVE_DECISIONS and self.unsupported <= MAX_UNSUPPORTED
        return is_thick and not self.lacking


class Terms(Record):
    """Terms of a promotion. More of a rise of cost than is tolerated takes a shown gain; `decisions_per_row`: decisions
    that the log grows by per row of its held-out part."""

    margin: float = Field(default=0.02, ge=0, le=1, description="largest loss of quality that is tolerated")
    max_cost_rise: float = Field(
        default=0.0, ge=0, description="largest relative rise of the mean cost of a query that is tolerated"
    )
    gain_for_double_cost: float = Field(
        default=GAIN_FOR_DOUBLE_COST, ge=0.001, description="shown gain of quality that pays for twice the cost"
    )
    decisions_per_row: float = 1.0

    def affords(self, live_usd: float, candidate_usd: float, gain: float) -> bool:
        """Returns whether a rise of the mean cost is tolerated, or paid for by so much gain."""
        rise = self.max_cost_rise + COST_TOLERANCE + max(gain, 0.0) / self.gain_for_double_cost
        return candidate_usd <= live_usd * (1 + rise) + 1e-12


DEFAULT_TERMS = Terms()


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
    crossed: Comparison | None = None,
) -> GateResult:
    """Promotes when quality is shown to be good enough, at a cost that is not higher, or that the gain pays for.

    The log decides where it can: quality must be shown to be no worse than the margin. Otherwise graded outcomes do:
    they are few, and know the newest grades best, so they must show a gain. Whatever is compared may veto.

    Args:
        outcomes: both routers as they are; `lacking` where the candidate was fitted on these grades.
        crossed: the same grades, each judged by a candidate that was fitted without it.
    """
    compared = tuple(c for c in (accuracy, outcomes, crossed, log) if c is not None)
    for comparison in (accuracy, outcomes, log):
        if comparison is not None and comparison.high < -terms.margin:
            loss = f"{comparison.name} falls by {-comparison.difference.value:.3f}"
            return GateResult(Verdict.DECLINE, f"{loss}, more than the margin {terms.margin:g}", compared)
    grades = crossed or outcomes
    deciding = log if log is not None and log.can_decide else grades
    gain = deciding.low if deciding.can_decide else 0.0
    if not terms.affords(cost_live_usd, cost_candidate_usd, gain):
        price = f"{terms.gain_for_double_cost:g} would pay for twice the cost"
        reason = (
            f"mean cost would rise from {cost_live_usd:.3g} to {cost_candidate_usd:.3g} USD a query, and a shown "
            f"gain of {max(gain, 0.0):.3f} does not pay for that ({price})"
        )
        return GateResult(Verdict.DECLINE, reason, compared)
    least = 0.0 if deciding is grades else -terms.margin
    if deciding.can_decide and deciding.low > least:
        reason = f"{deciding.change}, and the lower bound is above {least:g}"
        return GateResult(Verdict.PROMOTE, reason, compared)
    return needs_more(deciding, log, compared, terms)


def needs_more(
    deciding: Comparison, log: Comparison | None, compared: tuple[Comparison, ...], terms: Terms
) -> GateResult:
    """Verdict that more is needed, in decisions of the log where that can be estimated."""
    wanted = f"too uncertain for the margin {terms.margin:g}" if deciding is log else "which does not show a gain"
    reason = f"{deciding.change}, {deciding.lacking or wanted}"
    if log is not None and log.lacking:
        reason += f"; the log cannot decide: {log.lacking} (experts.yaml: feedback.trusted_keys, max_key_share)"
        return GateResult(Verdict.NEED_MORE, reason, compared)
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
    """Number of rows that would let the comparison conclude if the difference stayed what it is; None if never.

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
