"""Records of strategies. Experts are numbers of a router's columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from coe.router.answers import AnswerKind


class StrategyName(StrEnum):
    """Ways to answer a query by one expert or by several."""

    SINGLE = "single"  # one, the map's
    AGREE = "agree"  # two probes; the same answer is served, else that of an arbiter
    VOTE = "vote"  # several at once; the most probable answer
    SEQUENTIAL = "sequential"  # one after the other until asking on gains less than it costs
    ESCALATE = "escalate"  # a cheap one first; a strong one where its reply does not pass


@dataclass(frozen=True, slots=True)
class Reply:
    """An expert's reply. `key` is its answer's, None where it states none or was cut off. `is_failure`: there is
    nothing to serve, because the expert failed or was not asked (it cannot take the request). `logprob` is the mean
    log-probability of its tokens, where the engine gave them."""

    key: str | None = None
    is_failure: bool = False
    logprob: float | None = None


Replies = Mapping[int, Reply]
"""Replies so far by expert, failures among them."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Experts to ask next, all at once."""

    experts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """The end: the expert whose reply is served, None where all failed. `confidence` is the probability that its answer
    is right, None where nothing says; `agreed` counts the experts that gave it."""

    expert: int | None
    confidence: float | None = None
    agreed: int = 0


class Strategy(Protocol):
    """A strategy for one query. It keeps nothing: the same replies lead to the same step."""

    @property
    def experts(self) -> tuple[int, ...]:
        """All whom it may ask, each once."""
        ...

    def step(self, replies: Replies) -> Ask | Settled:
        """Next step after these replies. `Ask` names only experts that have not replied."""
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """A strategy for one request. Its experts are numbers of `experts`; answers with one key of `kind` are the same."""

    name: StrategyName
    strategy: Strategy
    experts: tuple[str, ...]
    kind: AnswerKind

    @property
    def asked(self) -> tuple[str, ...]:
        """All whom it may ask."""
        return tuple(self.experts[each] for each in self.strategy.experts)
