"""An expert that several engines serve alike: which of them gets a request, and who waits when all are busy.

Each engine has a circuit breaker: closed, open after failures in a row, then one trial at a time; or limited for the
cooldown that the provider asks for.

A conversation goes to the same engine, whose prefix cache knows it: the first by rendezvous hashing that is not above
its share of the load by more than a quarter ("consistent hashing with bounded loads", Mirrokni et al. 2016). The hash
is of the conversation and the engines' addresses alone, so it survives a restart and is the same on every gateway.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from coe.base.errors import BusyError
from coe.fleet.calls.backend import SPENT_COOLDOWN_S, ChatBackend

LOAD_BOUND = 1.25
QUEUED_PER_PLACE = 2

FAILURES_TO_OPEN = 5
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0
MAX_COOLDOWN_S = 60.0


class BreakerState(StrEnum):
    """State of one expert's breaker: it decides whether the expert gets requests."""

    CLOSED = "closed"  # all of them
    HALF_OPEN = "half_open"  # the next one, as a trial
    LIMITED = "limited"  # none, because the expert asked for a cooldown, or is without quota
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
        if self.state is not BreakerState.LIMITED:  # a request that was sent before ends no cooldown
            self.state = BreakerState.CLOSED

    def limit(self, now_s: float, cooldown_s: float, *, is_spent: bool = False) -> None:
        """The expert refused a request because of its rate limit, and asks for so long a cooldown: a sign of life.
        Without quota it lasts SPENT_COOLDOWN_S."""
        until_s = now_s + (SPENT_COOLDOWN_S if is_spent else min(cooldown_s, MAX_COOLDOWN_S))
        if self.state is BreakerState.LIMITED:  # keep the graver reason, and the longer time
            until_s, is_spent = max(until_s, self.probe_at_s), is_spent or self.is_spent
        self.probe_at_s, self.is_spent = until_s, is_spent
        self.state = BreakerState.LIMITED
        self.succeed()

    def cooldown_s(self, now_s: float) -> float:
        """Seconds of the cooldown that are left; 0 where the expert is not at a limit."""
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
        """The verdict of a probe, unless a request has told more meanwhile. After a cooldown, requests need no trial:
        the next refusal begins another."""
        if not self.wants_probe(now_s):
            return
        if is_alive:
            self.state = BreakerState.CLOSED if self.state is BreakerState.LIMITED else BreakerState.HALF_OPEN
        else:
            self.backoff_s = min(self.backoff_s * 2, MAX_BACKOFF_S)
            self.open(now_s)


ORDER = {state: place for place, state in enumerate(BreakerState)}
"""States of engines; the first one found is that of their expert."""


@dataclass(eq=False)
class Replica:
    """One engine of an expert, and the requests of this process that it has."""

    url: str
    backend: ChatBackend
    breaker: Breaker = field(default_factory=Breaker)
    running: int = 0

    def places(self, most: float) -> float:
        """Requests that it may have now."""
        return most if self.breaker.state is BreakerState.CLOSED else self.running + self.breaker.admits


class Queue:
    """Places for requests, the interactive ones before those of batches, each kind in order of arrival.

    Args:
        places: how many there are now; infinite where nobody has to wait.
    """

    def __init__(self, expert: str, places: Callable[[], float]) -> None:
        self._expert, self._places = expert, places
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {False: deque(), True: deque()}  # by is_batch
        self.taken = 0

    async def enter(self, *, is_batch: bool, is_again: bool = False) -> None:
        """Takes a place; `is_again` where the request had one before, of an engine that failed: it goes before all who
        wait. Raises BusyError where too many others do."""
        places, mine = self._places(), self._waiting[is_batch and not is_again]
        if self.taken < places:
            self.taken += 1
            return
        if len(mine) >= QUEUED_PER_PLACE * places and not is_again:
            raise BusyError(f"expert {self._expert} is at its limit of {places:g} requests, and {len(mine)} wait")
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        mine.insert(0 if is_again else len(mine), place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.leave()
            elif place in mine:  # `hand_out` may have passed over it already
                mine.remove(place)
            raise

    def leave(self) -> None:
        """Gives a place back, to those who wait."""
        self.taken -= 1
        self.hand_out()

    def hand_out(self) -> None:
        """Gives the places that are free to those who wait."""
        for waiting in (self._waiting[False], self._waiting[True]):
            while waiting and self.taken < self._places():
                place = waiting.popleft()
                if not place.done():
                    self.taken += 1
                    place.set_result(None)


class Replicas:
    """The engines of one expert, which are alike; of most experts there is one.

    Args:
        backends: by API root.
        max_running: requests at once on each engine; None: any number.
    """

    def __init__(self, expert: str, backends: Mapping[str, ChatBackend], max_running: int | None = None) -> None:
        self._expert, self._max_running = expert, max_running
        self.all = [Replica(url, backend) for url, backend in backends.items()]
        self.own: dict[tuple[str, Replica], Breaker] = {}  # of callers whose last requests failed at an engine
        self.are_several = len(self.all) > 1
        self.queue = None if max_running is None else Queue(expert, self._places)

    @property
    def best(self) -> Breaker:
        """The breaker that says whether the expert can be called: of the engine that can be, or can be next."""
        if not self.are_several:
            return self.all[0].breaker
        return min((each.breaker for each in self.all), key=lambda it: (not it.admits, ORDER[it.state], it.probe_at_s))

    def left(self, tried: Collection[Replica], caller: str) -> list[Replica]:
        """The engines that a caller may ask after those."""
        found = (each for each in self.all if each.breaker.admits and each not in tried)
        return [each for each in found if self.own.get((caller, each), each.breaker).admits]

    def next(self, conversation: str, tried: Collection[Replica] = (), caller: str = "") -> Replica:
        """The engine of several that is asked next, any where none gets requests: its breaker was asked before."""
        left, most = self.left(tried, caller) or self.all, self._max_running or math.inf
        return chosen([each for each in left if each.running < most] or left, conversation)

    async def is_alive(self) -> bool:
        """Returns True when one engine answers a probe."""
        return any(await asyncio.gather(*(each.backend.is_alive() for each in self.all)))

    async def aclose(self) -> None:
        await asyncio.gather(*(each.backend.aclose() for each in self.all))

    def _places(self) -> float:
        """An engine that comes back has one for a trial, beside what it has not ended."""
        most = math.inf if self._max_running is None else self._max_running
        return max(most, sum(each.places(most) for each in self.all))


ExpertBackend = ChatBackend | Replicas
"""An expert's engines; one alone may come without its set."""


def chosen(replicas: Collection[Replica], conversation: str) -> Replica:
    """The conversation's engine, or the next in its order that has room; without a conversation the least loaded."""
    if not conversation:
        return min(replicas, key=lambda each: (each.running, random.random()))  # not all processes the same one
    bound = math.ceil(LOAD_BOUND * (sum(each.running for each in replicas) + 1) / len(replicas))
    ranked = sorted(replicas, key=lambda each: weight(conversation, each.url), reverse=True)
    return next((each for each in ranked if each.running < bound), ranked[0])


def weight(conversation: str, url: str) -> bytes:
    """Rank of an engine for a conversation; the highest has it (rendezvous hashing, Thaler and Ravishankar 1996)."""
    return hashlib.blake2b(f"{url}\0{conversation}".encode("utf-8", "replace"), digest_size=8).digest()
