"""Schedule of kills, and the check that the log kept what the clients saw. Pure: one seed gives the same kills."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from coe.router.config.log import Durability

T = TypeVar("T")

PAUSE_S = (0.5, 3.0)
"""Between two kills, uniformly."""

WINDOW_S = {Durability.ASYNC: 1.0, Durability.BATCHED: 0.0, Durability.SYNC: 0.0}
"""Time before a kill of its gateway in which an answer may have ended and still be lost. `async` promises 20 ms and the
time of a write; the rest is for two cores that run the servers, the clients and whatever else this machine does."""


class Victim(StrEnum):
    GATEWAY_0 = "gateway-0"
    GATEWAY_1 = "gateway-1"
    CONSUMER = "consumer"
    REDIS = "redis"


class Kill(NamedTuple):
    """SIGKILL for `victim`, `at_s` seconds after the start of the load (planned), or on the monotonic clock (done)."""

    at_s: float
    victim: Victim


class Answer(NamedTuple):
    """An answer whose end a client saw; times are of the monotonic clock."""

    decision_id: str
    request_id: str
    gateway: Victim
    asked_at_s: float
    ended_at_s: float


class Row(NamedTuple):
    """The part of a row that the check needs."""

    decision_id: str
    request_id: str
    replica: str
    seq: int


def planned_kills(seed: int, seconds: float) -> list[Kill]:
    """Random victims at random times within `seconds`; each victim is among the first ones."""
    rng = random.Random(seed)
    first = list(Victim)
    rng.shuffle(first)
    kills: list[Kill] = []
    at_s = rng.uniform(*PAUSE_S)
    while at_s < seconds:
        victim = first[len(kills)] if len(kills) < len(first) else rng.choice(list(Victim))
        kills.append(Kill(at_s, victim))
        at_s += rng.uniform(*PAUSE_S)
    return kills


@dataclass(frozen=True, slots=True)
class Verdict:
    """Result of the comparison. `excused` lost answers lie within the mode's window before a kill, `lost` do not."""

    answers: int
    rows: int
    excused: tuple[Answer, ...] = ()
    lost: tuple[Answer, ...] = ()
    twice_asked: tuple[str, ...] = ()  # request ids that more than one row has
    twice_numbered: tuple[tuple[str, int], ...] = ()  # replica and number that more than one row has

    @property
    def is_kept(self) -> bool:
        return not (self.lost or self.twice_asked or self.twice_numbered)


def check(answers: Sequence[Answer], rows: Sequence[Row], kills: Iterable[Kill], window_s: float) -> Verdict:
    """Compares what clients saw with the rows.

    Args:
        kills: those that were done.
        window_s: a lost answer is excused when it ended at most this long before a kill of its gateway; 0 excuses none.
    """
    written = {row.decision_id for row in rows}
    missing = [answer for answer in answers if answer.decision_id not in written]
    done = list(kills)
    excused = [answer for answer in missing if window_s > 0 and is_within(answer, done, window_s)]
    return Verdict(
        answers=len(answers),
        rows=len(rows),
        excused=tuple(excused),
        lost=tuple(answer for answer in missing if answer not in excused),
        twice_asked=repeated(row.request_id for row in rows),
        twice_numbered=repeated((row.replica, row.seq) for row in rows),
    )


def is_within(answer: Answer, kills: Iterable[Kill], window_s: float) -> bool:
    """True if its gateway was killed after it was asked and at most `window_s` after it ended."""
    return any(
        kill.victim is answer.gateway and answer.asked_at_s <= kill.at_s <= answer.ended_at_s + window_s
        for kill in kills
    )


def repeated(values: Iterable[T]) -> tuple[T, ...]:
    return tuple(value for value, times in Counter(values).items() if times > 1)
