"""Drift of a router's promises: ADWIN over what should stay level while nothing changes. Pure.

Every prediction was made before its reward was known, so comparing the two is prequential: test, then train (Gama,
Sebastiao & Rodrigues, "On evaluating stream learning algorithms", Machine Learning 2013).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from decision_log.adwin import Alarm

REWARD = "reward"
ACCURACY = "prequential accuracy"
UNCERTAINTY = "uncertainty of the category"
FALLBACKS = "share of fallbacks"
SURPRISE = "reward minus prediction, "
"""Beginning of an expert's own signal. Its plain rewards also move when another router gives it other queries."""

USEFUL = 0.5
"""Rewards from here on count as a good answer: the middle of their range."""


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
