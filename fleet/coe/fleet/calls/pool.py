"""The experts as the gateway sees them: the engines of each, which of them can be called now, and calls of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from coe.base.errors import BusyError
from coe.fleet.calls.backend import SPENT, BackendRequest, BackendResponse, read_all
from coe.fleet.calls.connect import DisabledBackend
from coe.fleet.calls.drop_params import REFUSALS, TakenFields
from coe.fleet.calls.replicas import Breaker, BreakerState, ExpertBackend, Replica, Replicas
from coe.fleet.processes.tasks import stop_task

PROBE_EVERY_S = 0.25
SIGN_OF_LIFE_S = 2.0  # so long an answer, or a probe's, says that an expert is there
LOOK_EVERY_S = 0.5

Tried = Collection[Replica]
logger = logging.getLogger(__name__)


class Watcher(Protocol):
    """Hears of every request that an expert gets, and of its end."""

    def started(self, expert: str) -> None: ...

    def ended(self, expert: str) -> None: ...


class Call:
    """A request's place at an engine of an expert, until the end, which says something of that engine: `succeeded`,
    `failed`, `cool_down` or `abandoned`.

    Args:
        queue_ms: time that it waited for its place; None where any number has one.
        tried: engines that failed the request before.
    """

    def __init__(
        self, pool: ExpertPool, expert: str, replica: Replica, queue_ms: float | None, tried: Tried, caller: str
    ) -> None:
        self._pool, self.expert, self._replica, self.queue_ms = pool, expert, replica, queue_ms
        self._replicas, self._caller = pool.replicas(expert), caller
        self.tried = (*tried, replica)
        self._is_at_fault = False

    async def send(self, request: BackendRequest, added: Collection[str] = ()) -> BackendResponse:
        """Sends a request without what the expert refuses; `added` are fields of ours. Raises as `ChatBackend.send`
        does."""
        backend, taken = self._replica.backend, self._pool.taken[self.expert]
        response = None if taken.known else await backend.send(request)
        if response is None or response.status in REFUSALS:
            response = await taken.send(backend, request, added, response)
        if self._replicas.are_several or self.queue_ms is not None:
            response.engine = 1 + self._replicas.all.index(self._replica)
        return response

    @property
    def has_another(self) -> bool:
        """The engine was at fault, and another one of the expert may do better."""
        return self._is_at_fault and bool(self._replicas.left(self.tried, self._caller))

    def began(self) -> None:
        """A stream has begun; its end still follows."""
        self._pool.saw(self.expert)
        if self._replica.breaker.state is not BreakerState.CLOSED:
            self._replica.breaker.begin()
            if (queue := self._replicas.queue) is not None:
                queue.hand_out()  # there may be more places
            self._pool.refresh()

    def succeeded(self, *, is_at_fault: bool = False) -> None:
        """The engine is well; `is_at_fault` where it gave no answer, which another one may give."""
        self._pool.saw(self.expert)
        self._is_at_fault = is_at_fault
        breaker = self._replica.breaker
        is_news = breaker.failures or breaker.state is not BreakerState.CLOSED
        if is_news:
            breaker.succeed()
        if self._replicas.own:
            self._replicas.own.pop((self._caller, self._replica), None)
        self._end(is_news=bool(is_news))

    def failed(self, cause: str = "", *, conversation: str = "", problem: str = "", is_down: bool = False) -> None:
        """The engine failed; `conversation` where the prompt may be why, `problem` where an operator has to change
        something.

        Unless it `is_down` or has such a problem, others may fare better than this caller: a breaker of its own counts
        its failures, and that of all counts the first one and each time that its own opens.
        """
        now_s, shared, blamed = self._pool.clock(), self._replica.breaker, conversation
        if self._caller and not (is_down or problem):
            own = self._replicas.own.setdefault((self._caller, self._replica), Breaker())
            did_admit = own.admits
            own.fail(now_s, conversation)
            opens = did_admit and not own.admits
            blamed = "" if opens and shared.state is BreakerState.CLOSED else self._caller
            if opens:
                logger.info("expert %s fails for one key (%s) and is skipped for that one", self.expert, cause)
        self._pool.saw(self.expert, is_alive=False)
        shared.fail(now_s, blamed, problem, cause)
        self._is_at_fault = True
        self._end()

    def cool_down(self, cooldown_s: float, *, is_spent: bool = False) -> None:
        """The engine refused the request and asks for a cooldown, or no quota is left, for which all engines of the
        expert cool down: they have one account."""
        self._pool.saw(self.expert)
        for each in self._replicas.all if is_spent else (self._replica,):
            each.breaker.limit(self._pool.clock(), cooldown_s, is_spent=is_spent)
        self._is_at_fault = not is_spent
        self._end()

    def abandoned(self) -> None:
        self._replica.breaker.abandon()
        self._end()

    def _end(self, *, is_news: bool = True) -> None:
        self._replica.running -= 1
        if self._replicas.queue is not None:
            self._replicas.queue.leave()
        self._pool.expect_no_more(self.expert)
        if is_news:
            self._pool.refresh()


class ExpertPool:
    """Engines with a breaker each.

    Args:
        backends: by expert name.
        clock: seconds, only forward.
    """

    def __init__(
        self,
        backends: Mapping[str, ExpertBackend],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = dict(backends)
        self._replicas = {
            name: each if isinstance(each, Replicas) else Replicas(name, {"": each}) for name, each in backends.items()
        }
        self.taken = {name: TakenFields(name, clock) for name in backends}
        self.clock = clock
        self._prober: asyncio.Task[None] | None = None
        self._unprobed = frozenset(backends)
        self._seen_at_s: dict[str, float] = {}  # the last sign of life
        self._looking, self._looked_at_s = asyncio.Lock(), -LOOK_EVERY_S
        self.watcher: Watcher | None = None
        self.asleep: frozenset[str] = frozenset()  # of those that could be called, who has no weights on the GPU now
        self.limited: frozenset[str] = frozenset()  # cooling down, at a limit of their provider's
        self.alive: frozenset[str] = frozenset(backends)  # replaced on every change, so reading it costs nothing

    def problems(self) -> dict[str, str]:
        """The reason for each expert that cannot be called until somebody changes something, or that failed for one."""
        found = {name: self.breaker(name).problem for name in self._backends if self.breaker(name).problem}
        found |= {name: each.problem for name, each in self._backends.items() if isinstance(each, DisabledBackend)}
        return found | {name: f"expert {name} {self._words(name)}" for name in self.spent}

    @property
    def spent(self) -> tuple[str, ...]:
        """The experts whose account with their provider has no quota or credit left."""
        return tuple(name for name in sorted(self.limited) if self.breaker(name).is_spent)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._backends)

    @property
    def backends(self) -> tuple[ExpertBackend, ...]:
        return tuple(self._backends.values())

    def changed(self, backends: Mapping[str, ExpertBackend]) -> ExpertPool:
        """A pool of other backends. Those that both have share their breakers and the fields that they refuse, and are
        not probed at its start."""
        pool = ExpertPool(backends, self.clock)
        kept = {name for name, backend in backends.items() if self._backends.get(name) is backend}
        pool._unprobed -= kept
        pool._replicas |= {name: self._replicas[name] for name in kept}
        pool.taken |= {name: self.taken[name] for name in kept}
        pool._seen_at_s = {name: at_s for name, at_s in self._seen_at_s.items() if name in kept}
        pool.watcher, pool.asleep = self.watcher, self.asleep
        pool.refresh()
        return pool

    def set_asleep(self, names: frozenset[str]) -> None:
        """These get no requests until another call leaves them out. Who is left out then was found awake: what failed
        before, such as a probe of an engine that was stopped, does not count any more."""
        if names != self.asleep:
            for name in (self.asleep - names) & self._replicas.keys():
                for each in self._replicas[name].all:
                    each.breaker.succeed()
            self.asleep = names
            self.refresh()

    def backend(self, name: str) -> ExpertBackend:
        return self._backends[name]

    def replicas(self, name: str) -> Replicas:
        return self._replicas[name]

    def breaker(self, name: str) -> Breaker:
        """The one that says whether that expert can be called."""
        return self._replicas[name].best

    async def call(
        self, name: str, conversation: str = "", tried: Tried = (), *, caller: str = "", is_batch: bool = False
    ) -> Call:
        """Waits for a place at an engine of an expert that is none of `tried`. End the call in any case.

        Args:
            conversation: has the same engine each time, where it can.
            caller: its key, where others have one.
            is_batch: waits behind others.

        Raises:
            BusyError: too many wait, or nobody takes requests, of this caller or after the wait.
        """
        replicas, queue_ms = self._replicas[name], None
        if caller and replicas.own and not replicas.left(tried, caller):
            raise BusyError(f"no engine of expert {name} takes requests of this key now")
        self.expect(name)
        if replicas.queue is not None:
            began_s = time.monotonic()
            try:
                await replicas.queue.enter(is_batch=is_batch, is_again=bool(tried))
            except BaseException:
                self.expect_no_more(name)
                raise
            queue_ms = (time.monotonic() - began_s) * 1e3
            if not replicas.left(tried, caller):
                replicas.queue.leave()
                self.expect_no_more(name)
                raise BusyError(f"no engine of expert {name} takes requests now, after a wait for a place")
        replica = replicas.next(conversation, tried, caller) if replicas.are_several else replicas.all[0]
        replica.running += 1
        if replica.breaker.state is not BreakerState.CLOSED:
            if (caller, replica) not in replicas.own:  # whose failure would be no verdict
                replica.breaker.start()
            self.refresh()
        return Call(self, name, replica, queue_ms, tried, caller)

    async def ask(self, name: str, request: BackendRequest, max_bytes: int) -> tuple[int, bytes]:
        """Status and body of an expert's answer to a question of ours, which says nothing of the expert. Raises
        BackendError."""
        call = await self.call(name)
        try:
            response = await call.send(request)
            try:
                return response.status, await read_all(response.chunks, max_bytes)
            finally:
                await response.chunks.aclose()
        finally:
            call.abandoned()

    def state(self, name: str) -> BreakerState:
        return self.breaker(name).state

    def expect(self, name: str) -> None:
        """A request is for that expert, whose engine stays awake for it; follow it with `expect_no_more`."""
        if self.watcher is not None:
            self.watcher.started(name)

    def expect_no_more(self, name: str) -> None:
        if self.watcher is not None:
            self.watcher.ended(name)

    def saw(self, name: str, *, is_alive: bool = True) -> None:
        """A sign of life of an expert, or that there is none."""
        if is_alive:
            self._seen_at_s[name] = self.clock()
        else:
            self._seen_at_s.pop(name, None)

    def cooldowns_s(self) -> dict[str, float]:
        """Seconds until each expert that cools down gets requests again."""
        return {name: self.breaker(name).cooldown_s(self.clock()) for name in self.limited}

    async def start(self) -> None:
        """Probes every expert once, then those that are down again and again."""
        await self.probe_all()
        self._prober = asyncio.create_task(self._probe_forever(), name="expert-probes")

    async def stop_probing(self) -> None:
        """Leaves the probes to the pool that has taken this one's place."""
        await stop_task(self._prober)

    async def aclose(self, in_use: Collection[ExpertBackend] = ()) -> None:
        """Closes its backends, less those that another pool uses."""
        await self.stop_probing()
        used = {id(backend) for backend in in_use}
        await asyncio.gather(*(each.aclose() for each in self._backends.values() if id(each) not in used))

    async def is_answering(self) -> bool:
        """Returns True when at least one expert is up that gets requests or cools down at a limit: it answered
        recently, or answers a probe now.

        Without requests a breaker hears of nothing. It hears nothing of these probes either: an engine that is slow to
        answer them may be the only one that serves.
        """
        async with self._looking:  # callers in between get the same verdict
            if not self._is_seen() and self.clock() - self._looked_at_s >= LOOK_EVERY_S:
                probes = [asyncio.create_task(self._look_at(name)) for name in sorted(self.alive | self.limited)]
                for probe in asyncio.as_completed(probes):
                    await probe
                    if self._is_seen():
                        break
                for task in probes:
                    task.cancel()
                await asyncio.gather(*probes, return_exceptions=True)
                self._looked_at_s = self.clock()
            return self._is_seen()

    def _is_seen(self) -> bool:
        since_s = self.clock() - SIGN_OF_LIFE_S
        return any(self._seen_at_s.get(name, since_s) > since_s for name in self.alive | self.limited)

    async def _look_at(self, name: str) -> None:
        if await self._replicas[name].is_alive():
            self.saw(name)

    async def probe_all(self) -> None:
        """Takes out every engine that does not answer its first probe."""
        engines = [each for name in sorted(self._unprobed) for each in self._replicas[name].all]
        verdicts = await asyncio.gather(*(each.backend.is_alive() for each in engines))
        for each, is_alive in zip(engines, verdicts, strict=True):
            if not is_alive:
                each.breaker.open(self.clock())
        self.refresh()

    async def probe_due(self) -> None:
        """Probes the engines whose back-off has passed; one that answers gets a trial request."""
        engines = [each for replicas in self._replicas.values() for each in replicas.all]
        due = [each for each in engines if each.breaker.wants_probe(self.clock())]
        verdicts = await asyncio.gather(*(each.backend.is_alive() for each in due))
        for each, is_alive in zip(due, verdicts, strict=True):
            each.breaker.probed(is_alive, self.clock())
        for replicas in self._replicas.values():
            for own in replicas.own.values():
                own.probed(True, self.clock())  # the time is all that it waits for
            if due and replicas.queue is not None:
                replicas.queue.hand_out()  # there may be more places
        self.refresh()  # in any case: requests of another pool may have changed a breaker that both share

    async def _probe_forever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await self.probe_due()

    def _words(self, name: str) -> str:
        """The meaning of an expert's state, for readers of the log."""
        breaker = self.breaker(name)
        if breaker.state is BreakerState.CLOSED:
            return "answers again"
        if breaker.state is BreakerState.LIMITED:
            limit = SPENT if breaker.is_spent else "is at its limit"
            return f"{limit} and is skipped for {breaker.cooldown_s(self.clock()):.0f} s"
        if breaker.state is BreakerState.OPEN:
            why = breaker.cause or "it does not answer a probe"
            return f"is failing ({why}) and is skipped for {max(breaker.probe_at_s - self.clock(), 0.0):.0f} s"
        return "is tried with one request" if breaker.has_trial else "answers a probe; the next request tries it"

    def refresh(self) -> None:
        """Takes over what has become of breakers."""
        breakers = {name: replicas.best for name, replicas in self._replicas.items()}
        alive = frozenset(name for name, breaker in breakers.items() if breaker.admits) - self.asleep
        limited = (name for name, breaker in breakers.items() if breaker.state is BreakerState.LIMITED)
        self.limited = frozenset(limited) - self.asleep
        for name in sorted((self.alive ^ alive) - self.asleep):
            logger.info("expert %s %s", name, self._words(name))
        self.alive = alive
