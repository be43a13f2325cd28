"""Gate of a candidate router: whether it may replace the live one. Pure: it sees values, not routers.

Paired differences (candidate - live): category accuracy on labelled queries and reward on a part of the log (doubly
robust), and the score on graded outcomes. One rule: whatever shows a loss beyond the margin vetoes; what the candidate,
or its cross-fitted model, did not learn from decides, the log where it can, graded outcomes otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from coe.router.policy_config import GAIN_FOR_DOUBLE_COST
from coe.router.types import Metric, Record, Verdict

MIN_EFFECTIVE_DECISIONS = 20.0
"""Below this effective sample the log's estimate is not concluded from (ours)."""

MAX_UNSUPPORTED = 0.05
"""Largest share of the changed queries on which an expert was all but never tried, for the log to decide (ours)."""

COST_TOLERANCE = 0.01
"""Relative rise of the mean cost that counts as none: a choice per query moves it a little from fit to fit (ours)."""

ROUNDING = 1e-6
"""A loss of just the margin is allowed, whatever the order in which its terms were added up."""

LEVEL = 0.05
"""Chance at most with which a candidate that gains nothing is ever promoted by the log, however often it is judged."""

MOST_LUCKY = 0.1
"""Share of new experts that are nowhere better which may be given a category."""


@dataclass(frozen=True)
class Comparison:
    """One paired comparison.

    `effective_n` is the effective sample size, the plain one but for the log. `unsupported` is the share of the log's
    changed queries that only a model can judge; the interval allows for whatever the truth is there. `lacking` says why
    the comparison may not decide; empty if it may. `log_e` is the log's evidence that the gain is larger than
    `least_gain`: where a key is left out, by the share of WITHOUT_ONE that it reaches (training.off_policy). It is
    enough at 1 / `level`.
    """

    name: str
    live: Metric
    candidate: Metric
    difference: Metric
    effective_n: float
    unsupported: float = 0.0
    lacking: str = ""
    log_e: float = 0.0
    least_gain: float = 0.0
    level: float = LEVEL

    @property
    def low(self) -> float:
        return self.difference.interval.low if self.difference.interval else -math.inf

    @property
    def high(self) -> float:
        return self.difference.interval.high if self.difference.interval else math.inf

    @property
    def is_nothing(self) -> bool:
        return self.difference.value == self.low == self.high == 0

    @property
    def change(self) -> str:
        """The difference in words."""
        interval = f" [{self.low:+.3f}, {self.high:+.3f}]" if self.difference.interval else ""
        return f"{self.name} changes by {self.difference.value:+.3f}{interval}"

    @property
    def can_decide(self) -> bool:
        is_thick = self.effective_n >= MIN_EFFECTIVE_DECISIONS and self.unsupported <= MAX_UNSUPPORTED
        return is_thick and not self.lacking

    @property
    def is_evident(self) -> bool:
        return self.can_decide and self.log_e >= -math.log(self.level)


class Terms(Record):
    """Terms of a promotion. More of a rise of cost than is tolerated takes a shown gain; `decisions_per_row`: decisions
    that the log grows by per row of its held-out part."""

    margin: float = Field(default=0.02, ge=0, le=1, description="largest loss of quality that is tolerated")
    decisions_per_row: float = 1.0

    def least_gain(self, live_usd: float, candidate_usd: float) -> float:
        """Gain that pays for a rise of the mean cost beyond what is tolerated; a saving pays for a loss, up to the
        margin."""
        if live_usd <= 0:
            return float(candidate_usd > 0)
        rise = candidate_usd / live_usd - 1.0
        above, below = max(rise - COST_TOLERANCE, 0.0), min(rise + COST_TOLERANCE, 0.0)
        return max(GAIN_FOR_DOUBLE_COST * (above + below), -self.margin)


DEFAULT_TERMS = Terms()

WITHOUT_ONE = 0.75
"""Share of the evidence that has to be reached without any one voice as well. The luckiest of forty honest voices takes
a third of a standard error with it, so 15 to 1 asks for as much as some 48 to 1 of all would (ours;
benchmarks/LOG.md)."""

EVIDENT = 1.25
"""Half-widths of an interval by which a gain lies above what it must, where evidence of 1 / LEVEL is as likely as not
(ours)."""

LEAST_GROWTH = 1.1
"""Growth of a log that is not enough until it is: a tenth at least (ours)."""


@dataclass(frozen=True)
class GateResult:
    """The verdict and why, without `more_decisions`: an estimate of how many it still needs if all stays as it is."""

    verdict: Verdict
    reason: str
    comparisons: tuple[Comparison, ...]
    more_decisions: int | None = None

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.more_decisions is None:
            return f"{self.verdict}: {self.reason}"
        needed = f"about {self.more_decisions:,} more decisions are needed, answered and rated as now"
        return f"{self.verdict}: {self.reason}: {needed}"


def judge(
    accuracy: Comparison,
    outcomes: Comparison,
    log: Comparison | None,
    *,
    terms: Terms,
    cost_live_usd: float,
    cost_candidate_usd: float,
    crossed: Comparison | None = None,
    is_other: bool = True,
) -> GateResult:
    """Promotes when a gain is shown that pays for what it costs. Whatever is compared may veto.

    The log decides where it can, by evidence that may be looked at after every round (an e-value of 1 / LEVEL).
    Otherwise graded outcomes do, by their interval.

    Args:
        outcomes: both routers as they are; `lacking` where the candidate was fitted on these grades.
        crossed: the same grades, each judged by a candidate that was fitted without it.
        is_other: the candidate decides otherwise than the live router.
    """
    compared = tuple(c for c in (accuracy, outcomes, crossed, log) if c is not None)
    if not is_other:
        of_log = "" if log is None else f", {log.difference.n} logged"
        alike = f"{accuracy.difference.n} labelled, {outcomes.difference.n} graded{of_log} queries"
        return GateResult(Verdict.DECLINE, f"changes nothing: it decides like the live router on {alike}", compared)
    for comparison in (accuracy, outcomes, log):
        if comparison is not None and comparison.high < -terms.margin - ROUNDING:
            loss = f"{comparison.name} falls by {-comparison.difference.value:.3f}"
            return GateResult(Verdict.DECLINE, f"{loss}, more than the margin {terms.margin:g}", compared)
    if log is not None and log.is_evident:
        return GateResult(Verdict.PROMOTE, shown(log), compared)
    if log is not None and log.can_decide:
        return needs_more(log, log, compared, terms)
    grades = crossed or outcomes
    gain = max(grades.low, 0.0) if grades.can_decide else 0.0
    if gain < terms.least_gain(cost_live_usd, cost_candidate_usd):
        price = f"{GAIN_FOR_DOUBLE_COST:g} would pay for twice the cost"
        reason = (
            f"mean cost would rise from {cost_live_usd:.3g} to {cost_candidate_usd:.3g} USD a query, and a shown "
            f"gain of {gain:.3f} does not pay for that ({price})"
        )
        return GateResult(Verdict.DECLINE, reason, compared)
    if gain > 0:
        return GateResult(Verdict.PROMOTE, f"{grades.change}, and the lower bound is above 0", compared)
    return needs_more(grades, log, compared, terms)


def odds_in_words(log: Comparison) -> str:
    """The evidence of a gain; no chance above 1 is evidence."""
    least = "a gain" if log.least_gain == 0 else f"a gain above {log.least_gain:+.3f}, for what it costs,"
    reached = log.level * math.exp(min(max(log.log_e, 0.0), 20.0))
    asked = f"{1 / log.level:g} to 1, and {WITHOUT_ONE / log.level:g} to 1 without any one key"
    return f"the evidence of {least} is {reached:.3g} times what is asked ({asked})"


def shown(log: Comparison) -> str:
    """The gain by the log and its evidence in words."""
    return f"{log.change}, and {odds_in_words(log)}"


def needs_more(
    deciding: Comparison, log: Comparison | None, compared: tuple[Comparison, ...], terms: Terms
) -> GateResult:
    """Verdict that more is needed, in decisions of the log where that can be estimated."""
    wanted = odds_in_words(deciding) if deciding is log else "which does not show a gain"
    reason = f"{deciding.change}, {deciding.lacking or wanted}"
    if log is not None and log.lacking:
        reason += f"; the log cannot decide: {log.lacking} (experts.yaml: feedback.trusted_keys)"
        return GateResult(Verdict.NEED_MORE, reason, compared)
    if log is not None and log.unsupported > MAX_UNSUPPORTED:
        share = f"{log.unsupported:.0%} of the queries that would change hands"
        reason += (
            f"; the log cannot judge {share}: their new expert was all but never tried there (policies: exploration)"
        )
        return GateResult(Verdict.NEED_MORE, reason, compared)
    rows = more_needed(log or deciding)
    needed = None if rows is None else math.ceil(rows * terms.decisions_per_row)
    return GateResult(Verdict.NEED_MORE, reason, compared, needed)


def more_needed(comparison: Comparison) -> int | None:
    """Number of rows that would let the comparison conclude if the difference stayed what it is; None if never.

    An interval narrows with the square root of n, and the effective sample grows with n.
    """
    n, value = comparison.difference.n or 0, comparison.difference.value - comparison.least_gain
    half_width = (comparison.high - comparison.low) / 2
    if value <= 0 or not math.isfinite(half_width) or n == 0 or comparison.effective_n <= 0:
        return None
    growth = max((EVIDENT * half_width / value) ** 2, LEAST_GROWTH, MIN_EFFECTIVE_DECISIONS / comparison.effective_n)
    return math.ceil(n * (growth - 1))
