"""A circuit breaker for one engine of an expert: closed, open after failures in a row, then one trial at a time; or
limited for the rest that the expert asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleet.backend import SPENT_REST_S

FAILURES_TO_OPEN = 5
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
MAX_REST_S = 60.0


class BreakerState(StrEnum):
    """State of one expert's breaker: it decides whether the expert gets requests."""

    CLOSED = "closed"  # all of them
    HALF_OPEN = "half_open"  # the next one, as a trial
    LIMITED = "limited"  # none, because the expert asked for a rest, or is without quota
    OPEN = "open"  # none


@dataclass(slots=True)
class Breaker:
    """`now_s` is any clock that only goes forward."""

    state: BreakerState = BreakerState.CLOSED
    failures: int = 0  # in a row
    backoff_s: float = FIRST_BACKOFF_S
    probe_at_s: float = 0.0  # when one that is open or limited may be probed
    has_trial: bool = False  # the one request of a half-open breaker is on its way
    is_spent: bool = False  # limited by an account without quota
    problem: str = ""  # of the last failure, where somebody has to change something
    cause: str = ""  # of the last failure, in two words
    blamed: tuple[str, ...] = ()  # the last conversations or keys that had a failure for which they may be the cause

    @property
    def admits(self) -> bool:
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.HALF_OPEN and not self.has_trial)

    def start(self) -> None:
        """A request goes to the expert."""
        if self.state is BreakerState.HALF_OPEN:
            self.has_trial = True

    def begin(self) -> None:
        """A stream of the expert has begun. A trial that streams for minutes must not keep it out of service for so
        long; the next failure opens the breaker again."""
        if self.state is BreakerState.HALF_OPEN:
            self.state, self.has_trial = BreakerState.CLOSED, False
            self.failures = max(self.failures, FAILURES_TO_OPEN - 1)

    def succeed(self) -> None:
        self.failures, self.has_trial, self.backoff_s, self.problem, self.blamed = 0, False, FIRST_BACKOFF_S, "", ()
        if self.state is not BreakerState.LIMITED:  # a request that was sent before ends no rest
            self.state = BreakerState.CLOSED

    def limit(self, now_s: float, rest_s: float, *, is_spent: bool = False) -> None:
        """The expert refused a request because of its rate limit, and asks for so long a rest: a sign of life. Without
        quota it rests for SPENT_REST_S."""
        until_s = now_s + (SPENT_REST_S if is_spent else min(rest_s, MAX_REST_S))
        if self.state is BreakerState.LIMITED:  # of two reasons to rest, the longer rest and the graver one remain
            until_s, is_spent = max(until_s, self.probe_at_s), is_spent or self.is_spent
        self.probe_at_s, self.is_spent = until_s, is_spent
        self.state = BreakerState.LIMITED
        self.succeed()

    def rest_s(self, now_s: float) -> float:
        """Seconds of rest that are left; 0 where the expert is not at a limit."""
        return max(self.probe_at_s - now_s, 0.0) if self.state is BreakerState.LIMITED else 0.0

    def fail(self, now_s: float, blamed: str = "", problem: str = "", cause: str = "") -> None:
        """`blamed` names a conversation or a key whose prompts may be at fault. Its failures count as one, or a client
        who sends such prompts again and again would take the engine from everybody."""
        self.problem, self.cause = problem, cause
        if blamed in self.blamed:
            self.abandon()
            return
        if blamed:
            self.blamed = (*self.blamed, blamed)[-FAILURES_TO_OPEN:]
        self.failures += 1
        if self.state is BreakerState.HALF_OPEN:
            self.backoff_s = min(self.backoff_s * 2, MAX_BACKOFF_S)
            self.open(now_s)
        elif self.state is BreakerState.CLOSED and self.failures >= FAILURES_TO_OPEN:
            self.open(now_s)

    def abandon(self) -> None:
        """The request ended without a verdict: the client left."""
        self.has_trial = False

    def open(self, now_s: float) -> None:
        self.state, self.has_trial = BreakerState.OPEN, False
        self.probe_at_s = now_s + self.backoff_s

    def wants_probe(self, now_s: float) -> bool:
        return self.state in (BreakerState.OPEN, BreakerState.LIMITED) and now_s >= self.probe_at_s

    def probed(self, is_alive: bool, now_s: float) -> None:
        """The verdict of a probe, unless a request has told more meanwhile. Behind a rest, requests need no trial: the
        next refusal begins another."""
        if not self.wants_probe(now_s):
            return
        if is_alive:
            self.state = BreakerState.CLOSED if self.state is BreakerState.LIMITED else BreakerState.HALF_OPEN
        else:
            self.backoff_s = min(self.backoff_s * 2, MAX_BACKOFF_S)
            self.open(now_s)
