"""The strategy `agree`: two probes at once, and an arbiter where they differ. Experts are numbers of a router's
columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coe.router.answers import KeyOf


class StrategyName(StrEnum):
    """Ways to answer a query by one expert or by several."""

    SINGLE = "single"  # one, the map's
    AGREE = "agree"  # two probes; the same answer is served, else that of an arbiter


@dataclass(frozen=True, slots=True)
class Reply:
    """An expert's reply. `key` is its answer's, None where it states none or was cut off. `is_failure`: there is
    nothing to serve, because the expert failed or was not asked (it cannot take the request)."""

    key: str | None = None
    is_failure: bool = False


Replies = Mapping[int, Reply]
"""Replies so far by expert, failures among them."""

NOT_ASKED = Reply(is_failure=True)


@dataclass(frozen=True, slots=True)
class Settled:
    """The end: the expert whose reply is served, None where all failed; `agreed` counts the experts that gave it."""

    expert: int | None
    agreed: int = 0


@dataclass(frozen=True, slots=True)
class Agree:
    """Two probes and an arbiter, which is asked if they differ.

    If the probes state the same answer, the first one's words are served, else the arbiter's. If the arbiter states
    none, the first probe that does is served, and if none does the first reply.
    """

    probes: tuple[int, int]
    arbiter: int

    @property
    def experts(self) -> tuple[int, ...]:
        """All whom it may ask, in the order of asking."""
        return (*self.probes, self.arbiter)

    def needs_arbiter(self, replies: Replies) -> bool:
        """Return whether the probes gave no answer in common."""
        one, other = (replies.get(probe, NOT_ASKED).key for probe in self.probes)
        return one is None or one != other

    def settled(self, replies: Replies) -> Settled:
        """Return the outcome, once the probes have replied, and the arbiter if it is needed."""
        first = (self.arbiter, *self.probes) if self.needs_arbiter(replies) else self.probes
        given = [(expert, replies.get(expert, NOT_ASKED)) for expert in first]
        keys = [reply.key for _, reply in given if reply.key is not None]
        for expert, reply in given:
            if reply.key is not None:
                return Settled(expert, keys.count(reply.key))
        return Settled(next((expert for expert, reply in given if not reply.is_failure), None))


@dataclass(frozen=True, slots=True)
class Chosen:
    """A strategy for one request. Its experts are numbers of `experts`.

    `texts` gives the keys of texts, None where the request shows nothing to compare them by; `is_slow` as of
    `AnswerKind`. `calls` gives those of calls of tools, None where the request offers none.
    """

    strategy: Agree
    experts: tuple[str, ...]
    texts: KeyOf | None
    calls: KeyOf | None = None
    is_slow: bool = False

    @property
    def asked(self) -> tuple[str, ...]:
        """All whom it may ask."""
        return tuple(self.experts[each] for each in self.strategy.experts)
