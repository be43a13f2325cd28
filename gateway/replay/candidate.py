"""Logged requests decided by another router."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from base.errors import NoEligibleExpertError
from base.intervals import Z_95, wilson_interval
from gateway.replay.again import NotReplayableError, decide_again, features_of, routed
from router.pipeline import Router
from router.types import DecisionRecord, Interval, Metric, Record, RoutingDecision

MAX_TEXT_CHARS = 80


class Example(Record):
    """A request that the candidate sends elsewhere; `text` where the log keeps one."""

    decision_id: str
    category: str
    candidate_category: str
    expert: str
    candidate_expert: str
    candidate_reason: str
    text: str | None = None


class CategoryShift(Record):
    """Requests of one category, as it was decided then, and how many of them would go to another expert."""

    category: str
    decisions: int
    changed: int


class Move(Record):
    """Requests that one expert was chosen for and the candidate sends to another."""

    expert: str
    candidate_expert: str
    decisions: int


class CandidateReport(Record):
    """The candidate against what was decided. `changed` is the share sent to another expert; `predicted_gain` the mean
    difference in predicted quality by the candidate's own estimate, which does not prove it right.
    """

    candidate: str
    decisions: int
    compared: int
    from_text: int = 0
    skipped: dict[str, int]
    changed: Metric | None
    predicted_gain: Metric | None
    categories: tuple[CategoryShift, ...]
    moves: tuple[Move, ...]
    examples: tuple[Example, ...]


@dataclass
class Tally:
    """Counts over the log, one record at a time; they do not grow with it. `key` is of the data folder's hashes."""

    candidate: Router
    key: bytes
    max_examples: int
    decisions: int = 0
    compared: int = 0
    from_text: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    of_category: dict[str, Counter[bool]] = field(default_factory=lambda: defaultdict(Counter))
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    gain_sum: float = 0.0
    gain_squares: float = 0.0
    gains: int = 0
    examples: list[Example] = field(default_factory=list)

    def add(self, record: DecisionRecord) -> None:
        self.decisions += 1
        try:
            logged, inputs = routed(record)
            features = features_of(self.candidate, record, inputs, self.key)
            found = decide_again(self.candidate, record, features.embedding)
        except NotReplayableError as error:
            self.skipped[str(error)] += 1
            return
        except NoEligibleExpertError:
            self.skipped["no expert of the candidate can serve it"] += 1
            return
        self.compared += 1
        self.from_text += not features.is_exact
        is_changed = found.expert != logged.expert
        self.of_category[logged.category][is_changed] += 1
        self._add_gain(logged, found)
        if is_changed:
            self.moves[logged.expert, found.expert] += 1
            if len(self.examples) < self.max_examples:
                self.examples.append(example_of(record, logged, found))

    def _add_gain(self, logged: RoutingDecision, found: RoutingDecision) -> None:
        quality = dict(zip(found.eligible, found.predicted_quality, strict=True))
        if logged.expert not in quality:
            return
        gain = quality[found.expert] - quality[logged.expert]
        self.gains += 1
        self.gain_sum += gain
        self.gain_squares += gain * gain

    def report(self) -> CandidateReport:
        changed = sum(self.moves.values())
        shifts = [
            CategoryShift(category=name, decisions=counts.total(), changed=counts[True])
            for name, counts in self.of_category.items()
        ]
        return CandidateReport(
            candidate=self.candidate.version,
            decisions=self.decisions,
            compared=self.compared,
            from_text=self.from_text,
            skipped=dict(self.skipped.most_common()),
            changed=share_of(changed, self.compared),
            predicted_gain=mean_of(self.gain_sum, self.gain_squares, self.gains),
            categories=tuple(sorted(shifts, key=lambda each: (-each.changed, each.category))),
            moves=tuple(
                Move(expert=before, candidate_expert=after, decisions=n)
                for (before, after), n in self.moves.most_common()
            ),
            examples=tuple(self.examples),
        )


def example_of(record: DecisionRecord, logged: RoutingDecision, found: RoutingDecision) -> Example:
    text = None if record.text is None else " ".join(record.text.split())
    return Example(
        decision_id=record.decision_id,
        category=logged.category,
        candidate_category=found.category,
        expert=logged.expert,
        candidate_expert=found.expert,
        candidate_reason=found.reason.value,
        text=text if text is None or len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 3]}...",
    )


def share_of(count: int, n: int) -> Metric | None:
    """A share with Wilson's 95% interval; None of nothing."""
    if n == 0:
        return None
    low, high = wilson_interval(count / n, n)
    return Metric(value=count / n, interval=Interval(low=low, high=high), n=n)


def mean_of(total: float, squares: float, n: int) -> Metric | None:
    """A mean with its normal 95% interval, from the sums of n values and of their squares; None of nothing."""
    if n == 0:
        return None
    mean = total / n
    variance = max(squares - n * mean * mean, 0.0) / max(n - 1, 1)
    half = Z_95 * math.sqrt(variance / n)
    return Metric(value=mean, interval=Interval(low=mean - half, high=mean + half), n=n)
