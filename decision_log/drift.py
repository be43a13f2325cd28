"""Drift of a router's promises: ADWIN over what should stay level while nothing changes. Pure.

Every prediction was made before its reward was known, so comparing the two is prequential: test, then train (Gama,
Sebastiao & Rodrigues, "On evaluating stream learning algorithms", Machine Learning 2013).

ADWIN keeps the longest recent window of a stream whose mean has not changed (Bifet & Gavalda, "Learning from
time-changing data with adaptive windowing", SDM 2007): as O(log n) buckets of sizes 1, 2, 4, ...; whenever two parts of
it differ by more than chance explains, the older part is dropped. The cut is that of the authors' own program (MOA),
which river follows too: with m = 1 / (1/n0' + 1/n1'), n' = n - MIN_PART + 1, and d = ln(2 ln(n) / delta),

    epsilon = sqrt(2 / m * variance * d) + 2 / (3 m) * d

Written here because importing river's costs a gateway 80 MB; its values are what the tests compare with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

DELTA = 0.002
"""Confidence of the cut, the value of the paper's experiments and of river."""

CHECK_EVERY = 32
MAX_BUCKETS = 5
MIN_PART = 5
GRACE = 10
REWARD = "reward"
ACCURACY = "prequential accuracy"
UNCERTAINTY = "uncertainty of the category"
FALLBACKS = "share of fallbacks"
SURPRISE = "reward minus prediction, "
"""Beginning of an expert's own signal. Its plain rewards also move when another router gives it other queries."""
USEFUL = 0.5
"""Rewards from here on count as a good answer: the middle of their range."""


@dataclass(slots=True)
class Bucket:
    """Sum of some values of the stream, and the sum of their squared deviations from their mean."""

    total: float
    spread: float


class Split(NamedTuple):
    """Means of the older and of the newer part of a window, and by how much chance lets them differ."""

    before: float
    after: float
    epsilon: float


def merged_spread(n: float, mean: float, m: float, other_mean: float) -> float:
    """Amount that joining two samples of sizes n and m adds to the sum of their squared deviations (Chan et al.
    1979)."""
    return n * m * (mean - other_mean) ** 2 / (n + m)


@dataclass
class Adwin:
    """`width` values are in the window; `update` says whether the mean has changed.

    `rows[i]` holds buckets of 2**i values, oldest first; longer rows are older. `last_cut` is the clearest split that
    was seen at the last change.
    """

    delta: float = DELTA
    rows: list[list[Bucket]] = field(default_factory=lambda: [[]])
    width: int = 0
    total: float = 0.0
    spread: float = 0.0
    ticks: int = 0
    last_cut: Split | None = None

    @property
    def mean(self) -> float:
        """Mean of the window; 0 while it is empty."""
        return self.total / self.width if self.width else 0.0

    def update(self, value: float) -> bool:
        """Takes the next value; True when the older part of the window was dropped."""
        self.ticks += 1
        if self.width:
            self.spread += merged_spread(self.width, self.mean, 1, value)
        self.rows[0].append(Bucket(value, 0.0))
        self.width += 1
        self.total += value
        self._compress()
        if self.ticks % CHECK_EVERY or self.width <= GRACE:
            return False
        if not self._has_cut():
            return False
        self.last_cut = max(self._splits(), key=lambda split: abs(split.before - split.after) / split.epsilon)
        while self._has_cut():
            self._drop_oldest()
        return True

    def _compress(self) -> None:
        """Joins the two oldest buckets of every row that is too long."""
        for i, row in enumerate(self.rows):
            if len(row) <= MAX_BUCKETS:
                break
            if i + 1 == len(self.rows):
                self.rows.append([])
            size = 2**i
            one, two = row[0], row[1]
            added = merged_spread(size, one.total / size, size, two.total / size)
            self.rows[i + 1].append(Bucket(one.total + two.total, one.spread + two.spread + added))
            del row[:2]

    def _has_cut(self) -> bool:
        """Returns whether some split of the window has parts whose means differ."""
        return any(abs(split.before - split.after) > split.epsilon for split in self._splits())

    def _splits(self) -> Iterator[Split]:
        """The window cut between two buckets, the oldest cut first, where neither part is too short."""
        older_n, older = 0, 0.0
        for i in range(len(self.rows) - 1, -1, -1):
            for bucket in self.rows[i]:
                older_n, older = older_n + 2**i, older + bucket.total
                newer_n = self.width - older_n
                if newer_n < MIN_PART:
                    return
                if older_n >= MIN_PART:
                    epsilon = self._epsilon(older_n, newer_n)
                    yield Split(older / older_n, (self.total - older) / newer_n, epsilon)

    def _epsilon(self, n0: int, n1: int) -> float:
        inverse = 1 / (n0 - MIN_PART + 1) + 1 / (n1 - MIN_PART + 1)
        risk = math.log(2 * math.log(self.width) / self.delta)
        return math.sqrt(2 * inverse * self.spread / self.width * risk) + 2 / 3 * risk * inverse

    def _drop_oldest(self) -> None:
        while not self.rows[-1]:
            self.rows.pop()
        size, bucket = 2 ** (len(self.rows) - 1), self.rows[-1].pop(0)
        self.width -= size
        self.total -= bucket.total
        added = merged_spread(size, bucket.total / size, self.width, self.mean) if self.width else 0.0
        self.spread = max(0.0, self.spread - bucket.spread - added)
        while len(self.rows) > 1 and not self.rows[-1]:
            self.rows.pop()


@dataclass(frozen=True, slots=True)
class Change:
    """The mean of a stream changed: found at its value number `index`, from mean `before` to mean `after`."""

    index: int
    before: float
    after: float


@dataclass
class Alarm:
    """Follows a stream and reports each change once: after one, the window starts again, as river's does."""

    delta: float = DELTA
    n: int = 0
    window: Adwin = field(default_factory=Adwin)
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.window = Adwin(self.delta)

    def update(self, value: float) -> Change | None:
        """Takes the next value; the change that it brings to light, if it does."""
        self.n += 1
        if not self.window.update(value) or self.window.last_cut is None:
            return None
        change = Change(self.n - 1, self.window.last_cut.before, self.window.last_cut.after)
        self.changes.append(change)
        self.window = Adwin(self.delta)
        return change


def is_right(reward: float, predicted: float) -> bool:
    """Returns whether reward and prediction lie on the same side of `USEFUL`."""
    return (reward >= USEFUL) == (predicted >= USEFUL)


@dataclass(frozen=True, slots=True)
class SignalChange:
    """The mean of a signal went from `before` to `after`."""

    signal: str
    before: float
    after: float


@dataclass
class DriftMonitor:
    """Follows decisions in the order in which they are given; `counts` says how many values each signal had."""

    alarms: dict[str, Alarm] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        return {name: alarm.n for name, alarm in self.alarms.items()}

    def decided(self, uncertainty: float, *, is_fallback: bool) -> list[SignalChange]:
        """Takes a decision. `uncertainty` is what the router compared with its threshold, entropy in [0, 1] plus a
        weighted distance."""
        return [*self._feed(UNCERTAINTY, uncertainty), *self._feed(FALLBACKS, float(is_fallback))]

    def rated(self, expert: str, reward: float, predicted: float | None) -> list[SignalChange]:
        """Takes the reward in [0, 1] of an answer, and what the router had predicted of its expert, if it had."""
        changes = list(self._feed(REWARD, reward))
        if predicted is not None:
            changes += self._feed(ACCURACY, float(is_right(reward, predicted)))
            # ADWIN's bound is for values in [0, 1]; surprises lie in [-1, 1].
            changes += (
                SignalChange(found.signal, 2 * found.before - 1, 2 * found.after - 1)
                for found in self._feed(SURPRISE + expert, (reward - predicted + 1) / 2)
            )
        return changes

    def _feed(self, signal: str, value: float) -> Iterator[SignalChange]:
        change = self.alarms.setdefault(signal, Alarm()).update(value)
        if change is not None:
            yield SignalChange(signal, change.before, change.after)
