"""Correction of feedback for who gives it, so that it represents all answers. Pure.

Annoyed users rate more often, and some experts' users rate more than others'. So each reply is weighted by the inverse
of the probability that such an answer gets one. Signals of clients' behaviour count only once they agree with ratings.

No key is more than a share of the evidence. One key's feedback is weighted down to at most `max_share` of all evidence
on a cell, graded answers included. So a few keys may add to grades, and outweigh them only together. A trusted key, and
the only key of a log, has no limit: its number is `UNLIMITED`, and its questions count one by one. Shapes: n answers
with feedback.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from coe.base.shares import Z_95
from coe.decision_log.feedback_types import ImplicitKind
from coe.router.types import Float64Array, IntArray, Metric, Record, RoutingDecision

PRIOR_ANSWERS = 20.0
"""Answers of the coarser group that a reply rate is shrunk towards, so that a rare bin has no wild weight (ours)."""
MAX_REPLY_WEIGHT = 10.0
"""Largest weight of a reply: a little bias for bounded variance, as for importance weights (Bottou et al. 2013)."""
MIN_AGREEING = 20
"""Number of answers with feedback that a signal needs on either side before its agreement counts (ours)."""
AGREES = "agrees"
AGREEMENT_BAR = 0.1
"""Bound that the lower end of the interval of a signal's effect on ratings, in reward, must exceed (ours)."""


class ReplyBin(NamedTuple):
    """A group of answers that may get replies alike: the category, the expert, and what the client did."""

    category: str
    expert: str
    signals: tuple[ImplicitKind, ...] = ()

    def keeping(self, kinds: Collection[ImplicitKind]) -> ReplyBin:
        """Return the bin without other signals."""
        return self._replace(signals=tuple(kind for kind in self.signals if kind in kinds))


Group = tuple[object, ...]
"""A bin, or the first few of its fields."""
EVERYTHING: Group = ()


@dataclass
class ReplyRates:
    """Answers and replies per bin; a million answers are a few hundred numbers."""

    answers: Counter[Group] = field(default_factory=Counter)
    replies: Counter[Group] = field(default_factory=Counter)

    def count(self, reply_bin: ReplyBin, answers: int, replies: int) -> None:
        """Add `answers` answers of a bin, of which `replies` got feedback."""
        for part in coarser_groups(reply_bin):
            self.answers[part] += answers
            self.replies[part] += replies

    def keeping(self, kinds: Collection[ImplicitKind]) -> ReplyRates:
        """Return the same answers in bins without other signals."""
        found = ReplyRates()
        for part, answers in self.answers.items():
            if isinstance(part, ReplyBin):
                found.count(part.keeping(kinds), answers, self.replies[part])
        return found

    @property
    def overall(self) -> float:
        """The share of answers that got feedback; 0 without any."""
        return self.replies[EVERYTHING] / max(self.answers[EVERYTHING], 1)

    def propensity(self, reply_bin: ReplyBin) -> float:
        """Return the probability that such an answer gets feedback, by beta-binomial means with a prior of
        `PRIOR_ANSWERS`. The bin's rate is shrunk towards the bin's without its signals, that towards the category's,
        that towards the overall rate."""
        rate = self.overall
        for part in reversed(coarser_groups(reply_bin)[:-1]):
            rate = (self.replies[part] + PRIOR_ANSWERS * rate) / (self.answers[part] + PRIOR_ANSWERS)
        return rate

    def weight(self, reply_bin: ReplyBin) -> float:
        """Return how many answers like it one reply represents, relative to the average reply; at most
        `MAX_REPLY_WEIGHT`.

        This is the stabilised inverse propensity of Robins, Hernan & Brumback 2000. It removes the bias that the bin
        explains. No log shows whether users, among equal bins, reply *because* they liked an answer.
        """
        rate = self.propensity(reply_bin)
        return MAX_REPLY_WEIGHT if rate <= self.overall / MAX_REPLY_WEIGHT else self.overall / rate


def coarser_groups(reply_bin: ReplyBin) -> tuple[Group, Group, Group, Group]:
    """Return the bin and the ever larger groups it belongs to, up to everything."""
    return reply_bin, reply_bin[:2], reply_bin[:1], EVERYTHING


class SignalAgreement(Record):
    """The agreement of what clients did with their ratings of the same answers.

    `answers` have the signal, and `with_feedback` of them got feedback; the means are of the feedback with and without
    it. `difference` is how much less answers with the signal were liked; None while either side has nothing. `verdict`
    is `agrees` if training may learn from the signal, or the reason why it may not.
    """

    kind: ImplicitKind
    answers: int
    with_feedback: int
    mean_with: float
    mean_without: float
    difference: Metric | None
    verdict: str


def agreement(
    kind: ImplicitKind, answers: int, liked_with: Sequence[float] | Float64Array, liked_without: Float64Array
) -> SignalAgreement:
    """Measure the agreement of a signal from rewards in [0, 1] of answers with it and without it.

    The interval is that of Agresti & Caffo 2000 for two proportions (one success and one failure added to each side). A
    reward between 0 and 1 varies at most as much as a proportion of the same mean, so the interval is not too narrow.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (liked_with, liked_without)]
    counts = [len(side) for side in sides]
    means = [float(side.mean()) if len(side) else 0.0 for side in sides]
    found = difference(sides[1], sides[0]) if all(counts) else None
    verdict = AGREES
    if min(counts) < MIN_AGREEING:
        verdict = f"needs {MIN_AGREEING} answers with feedback on either side"
    elif found is None or found.interval is None or found.interval.low <= AGREEMENT_BAR:
        verdict = f"not surely worse by more than {AGREEMENT_BAR:g}"
    return SignalAgreement(
        kind=kind,
        answers=answers,
        with_feedback=counts[0],
        mean_with=means[0],
        mean_without=means[1],
        difference=found,
        verdict=verdict,
    )


def difference(left: Float64Array, right: Float64Array) -> Metric:
    """Return the mean of `left` minus the mean of `right`, with Agresti and Caffo's 95% interval."""
    middle, variance = 0.0, 0.0
    for side, sign in ((left, 1.0), (right, -1.0)):
        mean = (float(side.sum()) + 1.0) / (len(side) + 2.0)
        middle += sign * mean
        variance += mean * (1.0 - mean) / (len(side) + 2.0)
    half = Z_95 * math.sqrt(variance)
    low, high = max(middle - half, -1.0), min(middle + half, 1.0)
    return Metric.within(low, float(left.mean() - right.mean()), high, len(left) + len(right))


def correlation(left: Float64Array, right: Float64Array) -> Metric | None:
    """Return Pearson's correlation of two (n,) with Fisher's 95% interval (Fisher 1921); None for fewer than four
    pairs, or if one side is constant."""
    if len(left) < 4 or float(np.ptp(left)) == 0.0 or float(np.ptp(right)) == 0.0:
        return None
    r = float(np.corrcoef(left, right)[0, 1])
    middle, half = math.atanh(min(max(r, -0.999999), 0.999999)), Z_95 / math.sqrt(len(left) - 3)
    return Metric.within(math.tanh(middle - half), r, math.tanh(middle + half), len(left))


class JudgeAgreement(Record):
    """The agreement of a judge's grades with users' ratings of the same answers, and its consistency when two
    answers were swapped."""

    judge: str
    rubric: str
    grades: int
    mean_grade: float
    with_feedback: int
    correlation: Metric | None
    pairs: int
    consistent: int

    @property
    def name(self) -> tuple[str, str]:
        return self.judge, self.rubric

    @property
    def is_trusted(self) -> bool:
        """True if its grades surely follow users' ratings, so that `coe retrain` learns from its preferences."""
        interval = None if self.correlation is None else self.correlation.interval
        return interval is not None and self.with_feedback >= MIN_AGREEING and interval.low > 0


def judge_agreements(
    grades: Mapping[tuple[str, str], Mapping[str, float]],
    swapped: Mapping[tuple[str, str], tuple[int, int]],
    rewards: Mapping[str, float],
) -> tuple[JudgeAgreement, ...]:
    """Measure the agreement of every judge with each of its rubrics.

    Args:
        grades: (judge, rubric) -> grades by decision, as returned by `decision_log.read`.
        swapped: (judge, rubric) -> number of pairs it saw both ways round, and of those it agreed with itself on.
        rewards: users' ratings, by decision.
    """
    found = []
    for (judge, rubric), of_decision in sorted(grades.items()):
        both = sorted(of_decision.keys() & rewards.keys())
        pairs, consistent = swapped.get((judge, rubric), (0, 0))
        given, said = (np.array([of[name] for name in both]) for of in (of_decision, rewards))
        found.append(
            JudgeAgreement(
                judge=judge,
                rubric=rubric,
                grades=len(of_decision),
                mean_grade=float(np.mean(list(of_decision.values()))),
                with_feedback=len(both),
                correlation=correlation(given, said),
                pairs=pairs,
                consistent=consistent,
            )
        )
    return tuple(found)


@dataclass
class Replies:
    """The counts of every answer, and the bin and reward of those with feedback (n), in the order of `add`."""

    rates: ReplyRates = field(default_factory=ReplyRates)
    bins: list[ReplyBin] = field(default_factory=list)
    rewards: array[float] = field(default_factory=lambda: array("d"))
    with_signal: dict[ImplicitKind, int] = field(default_factory=lambda: dict.fromkeys(ImplicitKind, 0))
    _known: dict[ReplyBin, ReplyBin] = field(default_factory=dict)

    def add(self, decision: RoutingDecision, signals: tuple[ImplicitKind, ...], reward: float | None) -> None:
        """Add one answer whose expert the router chose; `reward` is None without feedback."""
        made = ReplyBin(decision.category, decision.expert, signals)
        reply_bin = self._known.setdefault(made, made)
        self.rates.count(reply_bin, 1, int(reward is not None))
        for kind in signals:
            self.with_signal[kind] += 1
        if reward is not None:
            self.bins.append(reply_bin)
            self.rewards.append(reward)

    def agreements(self) -> dict[ImplicitKind, SignalAgreement]:
        """Measure the agreement of every kind of signal, on the answers that have feedback."""
        rewards = np.array(self.rewards, dtype=np.float64)
        found = {}
        for kind in ImplicitKind:
            has_signal = np.array([kind in each.signals for each in self.bins], dtype=bool)
            found[kind] = agreement(kind, self.with_signal[kind], rewards[has_signal], rewards[~has_signal])
        return found

    def weights(self) -> Float64Array:
        """Return how many answers each reply represents, relative to the average reply, (n,). Only signals that
        agree with feedback separate bins."""
        usable = {kind for kind, found in self.agreements().items() if found.verdict == AGREES}
        rates = self.rates.keeping(usable)
        weight_of = {each: rates.weight(each.keeping(usable)) for each in self._known}
        return np.array([weight_of[each] for each in self.bins], dtype=np.float64)


UNLIMITED = -1


def min_keys(max_share: float) -> int:
    """Return the fewest keys of which none has more than that share: five for a fifth."""
    return math.ceil(1.0 / max_share - 1e-9)


def cap_level(totals: Float64Array, others: float, max_share: float) -> float:
    """Return the largest cap t on each key's total at which no key exceeds its share: t <= share x (others + sum
    min(total, t)). It is infinite if no key exceeds its share without a cap, and 0 if no cap can keep every key within
    it.

    Args:
        totals: weight of each limited key, of shape (k,).
        others: unlimited weight.
    """
    ranked = np.sort(totals)[::-1]
    rest = float(ranked.sum())
    if len(ranked) == 0 or ranked[0] <= max_share * (others + rest) * (1 + 1e-12):
        return math.inf
    for capped, total in enumerate(ranked, start=1):
        rest -= float(total)
        if max_share * capped >= 1.0 - 1e-12:
            return float(total)  # so many equal keys do not exceed the share each
        found = max_share * (others + rest) / (1.0 - max_share * capped)
        if capped == len(ranked) or found >= ranked[capped]:
            return max(found, 0.0)
    return 0.0


def counted_share(
    group: IntArray, key: IntArray, weight: Float64Array, others: Float64Array, max_share: float
) -> Float64Array:
    """Return the share (n,) of each answer's weight that counts, so that a limited key never exceeds its share of a
    group.

    Args:
        group: number of the cell that each answer is evidence of (n,); `others` (groups,) is the other evidence.
        key: number of the key that gave the feedback (n,), `UNLIMITED` if it has no limit.
    """
    counted = np.ones(len(group))
    for number in np.unique(group[key >= 0]):
        inside = group == number
        limited = np.flatnonzero(inside & (key >= 0))
        free = float(weight[inside & (key < 0)].sum())
        names, member = np.unique(key[limited], return_inverse=True)
        totals = np.bincount(member, weights=weight[limited], minlength=len(names)).astype(np.float64)
        most = cap_level(totals, float(others[number]) + free, max_share)
        counted[limited] = np.minimum(1.0, most / np.maximum(totals, 1e-12))[member]
    return counted


def clusters(question: IntArray, key: IntArray) -> IntArray:
    """Return the bootstrap cluster of each answer, (n,): one limited key, or else one question."""
    return np.where(key >= 0, -1 - key, question)
