"""The experts as the gateway sees them: a backend each, and which of them can be called now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

from fleet.backend import BackendRequest, BackendResponse, ChatBackend
from fleet.breaker import Breaker, BreakerState
from fleet.connect import DisabledBackend
from fleet.taken_fields import TakenFields
from fleet.tasks import stop_task
from fleet.wires.builtin import BuiltinBackend

PROBE_EVERY_S = 0.25
SIGN_OF_LIFE_S = 2.0  # so long an answer, or a probe's, says that an expert is there
LOOK_EVERY_S = 0.5

logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Hears of every request that an expert gets, and of its end."""

    def started(self, expert: str) -> None: ...

    def ended(self, expert: str) -> None: ...


class ExpertPool:
    """Backends with a breaker each.

    Args:
        backends: by expert name.
        clock: seconds, only forward.
        sleepers: names the experts whose engine sleeps, at every look; None where others call `set_asleep`.
    """

    def __init__(
        self,
        backends: Mapping[str, ChatBackend],
        clock: Callable[[], float] = time.monotonic,
        sleepers: Callable[[], frozenset[str]] | None = None,
    ) -> None:
        self._sleepers = sleepers
        self._backends = dict(backends)
        self._taken = {name: TakenFields(name, each, clock) for name, each in backends.items()}
        self._clock = clock
        self._builtins = {name: each for name, each in backends.items() if isinstance(each, BuiltinBackend)}
        self._breakers = {name: Breaker() for name in backends}
        self._prober: asyncio.Task[None] | None = None
        self._unprobed = frozenset(backends)
        self._seen_at_s: dict[str, float] = {}  # the last sign of life
        self._looking, self._looked_at_s = asyncio.Lock(), -LOOK_EVERY_S
        self.watcher: Watcher | None = None
        self.asleep: frozenset[str] = frozenset()  # of those that could be called, who has no weights on the GPU now
        self.limited: frozenset[str] = frozenset()  # at their rate limit
        self.alive: frozenset[str] = frozenset(backends)  # replaced on every change, so reading it costs nothing

    def problems(self) -> dict[str, str]:
        """The reason for each expert that cannot be called until somebody changes something."""
        found = {name: each.problem for name, each in self._backends.items() if isinstance(each, DisabledBackend)}
        spent = (name for name in sorted(self.limited) if self._breakers[name].is_spent)
        return found | {name: f"expert {name} {self._words(self._breakers[name])}" for name in spent}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._backends)

    @property
    def backends(self) -> tuple[ChatBackend, ...]:
        return tuple(self._backends.values())

    def changed(self, backends: Mapping[str, ChatBackend]) -> ExpertPool:
        """A pool of other backends. Those that both have share their breaker and the fields that they refuse, and are
        not probed at its start."""
        pool = ExpertPool(backends, self._clock, self._sleepers)
        kept = {name for name, backend in backends.items() if self._backends.get(name) is backend}
        pool._unprobed -= kept
        pool._breakers |= {name: self._breakers[name] for name in kept}
        pool._taken |= {name: self._taken[name] for name in kept}
        pool._seen_at_s = {name: at_s for name, at_s in self._seen_at_s.items() if name in kept}
        pool.watcher, pool.asleep = self.watcher, self.asleep
        pool._refresh()
        return pool

    def set_asleep(self, names: frozenset[str]) -> None:
        """These get no requests until another call leaves them out. Who is left out then was found awake: what failed
        before, such as a probe of an engine that was stopped, does not count any more."""
        if names != self.asleep:
            for name in (self.asleep - names) & self._breakers.keys():
                self._breakers[name].succeed()
            self.asleep = names
            self._refresh()

    def backend(self, name: str) -> ChatBackend:
        return self._backends[name]

    def send(self, name: str, request: BackendRequest, added: Collection[str] = ()) -> Awaitable[BackendResponse]:
        """Sends a request without what that expert refuses; `added` are fields of ours. Raises as `ChatBackend.send`
        does."""
        return self._taken[name].send(request, added)

    def answering(self, body: Mapping[str, object]) -> tuple[str, ...]:
        """The experts that are not language models and that have an answer to a chat request."""
        return tuple(name for name, each in self._builtins.items() if each.answer_to(body) is not None)

    def state(self, name: str) -> BreakerState:
        return self._breakers[name].state

    def expect(self, name: str) -> None:
        """A request was decided for that expert, whose engine stays awake for it; follow it with `expect_no_more`."""
        if self.watcher is not None:
            self.watcher.started(name)

    def expect_no_more(self, name: str) -> None:
        self._ended(name)

    def started(self, name: str) -> None:
        """A request goes to that expert; follow it with `succeeded`, `failed`, `at_limit` or `abandoned`."""
        if self.watcher is not None:
            self.watcher.started(name)
        if self._breakers[name].state is not BreakerState.CLOSED:
            self._breakers[name].start()
            self._refresh()

    def began(self, name: str) -> None:
        """A stream of that expert has begun; one of the four still follows."""
        self._seen_at_s[name] = self._clock()
        if self._breakers[name].state is not BreakerState.CLOSED:
            self._breakers[name].begin()
            self._refresh()

    def _ended(self, name: str) -> None:
        if self.watcher is not None:
            self.watcher.ended(name)

    def succeeded(self, name: str) -> None:
        self._ended(name)
        self._seen_at_s[name] = self._clock()
        breaker = self._breakers[name]
        if breaker.failures or breaker.state is not BreakerState.CLOSED:
            breaker.succeed()
            self._refresh()

    def failed(self, name: str) -> None:
        self._ended(name)
        self._seen_at_s.pop(name, None)
        self._breakers[name].fail(self._clock())
        self._refresh()

    def at_limit(self, name: str, rest_s: float, *, is_spent: bool = False) -> None:
        """It refused a request because of its rate limit, and asks for a rest (s), or because no quota is left."""
        self._ended(name)
        self._seen_at_s[name] = self._clock()
        self._breakers[name].limit(self._clock(), rest_s, is_spent=is_spent)
        self._refresh()

    def rests_s(self) -> dict[str, float]:
        """Seconds until each expert that is at its rate limit gets requests again."""
        return {name: self._breakers[name].rest_s(self._clock()) for name in self.limited}

    def abandoned(self, name: str) -> None:
        self._ended(name)
        self._breakers[name].abandon()
        self._refresh()

    async def start(self) -> None:
        """Probes every expert once, then those that are down again and again."""
        self._ask_who_sleeps()
        await self.probe_all()
        self._prober = asyncio.create_task(self._probe_forever(), name="expert-probes")

    async def stop_probing(self) -> None:
        """Leaves the probes to the pool that has taken this one's place."""
        await stop_task(self._prober)

    async def aclose(self, in_use: Collection[ChatBackend] = ()) -> None:
        """Closes its backends, less those that another pool uses."""
        await self.stop_probing()
        used = {id(backend) for backend in in_use}
        await asyncio.gather(*(each.aclose() for each in self._backends.values() if id(each) not in used))

    async def is_answering(self) -> bool:
        """Returns True when at least one expert is up that gets requests or rests at its rate limit: it answered
        recently, or answers a probe now.

        Without requests a breaker hears of nothing. It hears nothing of these probes either: an engine that is slow to
        answer them may be the only one that serves.
        """
        async with self._looking:  # callers in between get the same verdict
            if not self._is_seen() and self._clock() - self._looked_at_s >= LOOK_EVERY_S:
                probes = [asyncio.create_task(self._look_at(name)) for name in sorted(self.alive | self.limited)]
                for probe in asyncio.as_completed(probes):
                    await probe
                    if self._is_seen():
                        break
                for task in probes:
                    task.cancel()
                await asyncio.gather(*probes, return_exceptions=True)
                self._looked_at_s = self._clock()
            return self._is_seen()

    def _is_seen(self) -> bool:
        since_s = self._clock() - SIGN_OF_LIFE_S
        return any(self._seen_at_s.get(name, since_s) > since_s for name in self.alive | self.limited)

    async def _look_at(self, name: str) -> None:
        if await self._backends[name].is_alive():
            self._seen_at_s[name] = self._clock()

    async def probe_all(self) -> None:
        """Takes out every expert that does not answer its first probe."""
        names = sorted(self._unprobed)
        verdicts = await asyncio.gather(*(self._backends[name].is_alive() for name in names))
        for name, is_alive in zip(names, verdicts, strict=True):
            if not is_alive:
                self._breakers[name].open(self._clock())
        self._refresh()

    def _ask_who_sleeps(self) -> None:
        if self._sleepers is not None:
            self.set_asleep(self._sleepers() & self._breakers.keys())

    async def probe_due(self) -> None:
        """Probes the experts whose back-off has passed; one that answers gets a trial request."""
        due = [name for name, breaker in self._breakers.items() if breaker.wants_probe(self._clock())]
        verdicts = await asyncio.gather(*(self._backends[name].is_alive() for name in due))
        for name, is_alive in zip(due, verdicts, strict=True):
            self._breakers[name].probed(is_alive, self._clock())
        self._refresh()  # in any case: requests of another pool may have changed a breaker that both share

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            self._ask_who_sleeps()
            await self.probe_due()

    def _words(self, breaker: Breaker) -> str:
        """The meaning of a breaker's state, for readers of the log."""
        if breaker.state is BreakerState.CLOSED:
            return "answers again"
        if breaker.state is BreakerState.LIMITED:
            limit = "without quota or credit at its provider" if breaker.is_spent else "at its rate limit"
            return f"is {limit} and is skipped for {breaker.rest_s(self._clock()):.0f} s"
        if breaker.state is BreakerState.OPEN:
            return f"is failing and is skipped for {max(breaker.probe_at_s - self._clock(), 0.0):.0f} s"
        return "is tried with one request" if breaker.has_trial else "answers a probe; the next request tries it"

    def _refresh(self) -> None:
        alive = frozenset(name for name, breaker in self._breakers.items() if breaker.admits) - self.asleep
        limited = (name for name, breaker in self._breakers.items() if breaker.state is BreakerState.LIMITED)
        self.limited = frozenset(limited) - self.asleep
        for name in sorted((self.alive ^ alive) - self.asleep):
            logger.info("expert %s %s", name, self._words(self._breakers[name]))
        self.alive = alive
