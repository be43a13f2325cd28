"""Decides which engines of a gateway are awake: tells the pool who sleeps, and has engines woken for requests."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from coe.base.errors import BackendError, RouterError
from coe.fleet.calls.json_posts import HELD
from coe.fleet.calls.pool import ExpertPool
from coe.fleet.processes.folder_lock import FolderLock
from coe.fleet.processes.tasks import happens, stop_task
from coe.fleet.residency.scheduler import Scheduler, Step
from coe.fleet.residency.types import TIME_OF, Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.router.config.residency import ResidencyConfig

LOOK_EVERY_S = 0.5
OBSERVE_EVERY_S = 5.0
RETRY_AFTER_S = 5.0

logger = logging.getLogger(__name__)


@dataclass
class Made:
    """Changes of one kind of one engine since the start of this process."""

    count: int = 0
    failed: int = 0
    seconds: float = 0.0


STARTED_S = time.time() - time.monotonic()


def forward_clock() -> float:
    """Unix seconds that never go back: those of the start, and what has passed since."""
    return STARTED_S + time.monotonic()


class Waiter(NamedTuple):
    """A request that has an engine woken; each of `any_of` would do. `let_in` is the engine's count when it was asked
    for."""

    future: asyncio.Future[None]
    name: str
    any_of: frozenset[str]
    let_in: int


class Controller:
    """The engines of one gateway process, which alone changes them.

    Args:
        actuator: changes engines, each named by one of its experts.
        lock: keeps other processes of the host from deciding; released at the end.
        pooling: API root -> an engine that threads ask for embeddings or scores, which no pool of experts tells.
        observe_every_s: so often engines are asked for their state, which others may change.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        actuator: VllmActuator,
        wanted: ResidencyConfig,
        *,
        lock: FolderLock | None = None,
        observe_every_s: float = OBSERVE_EVERY_S,
        pooling: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.scheduler, self._wanted, self._lock = scheduler, wanted, lock
        self._actuator, self._observe_every_s = actuator, observe_every_s
        self._pooling = pooling
        self.made: defaultdict[tuple[str, Residency], Made] = defaultdict(Made)
        self._resident_of = {expert: each.name for each in scheduler.residents for expert in each.experts}
        self._always = frozenset(each.name for each in scheduler.residents if not each.awake_gib)
        self._waiters: list[Waiter] = []
        self._pool: ExpertPool | None = None
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._observed_at_s = forward_clock()

    def start(self, pool: ExpertPool) -> None:
        """Begins with the states that the scheduler was given."""
        self.use(pool)
        loop = asyncio.get_running_loop()
        for root, name in self._pooling.items():
            HELD[root] = partial(self._held, loop, name)
        self._task = asyncio.create_task(self._run(), name="residency")

    def use(self, pool: ExpertPool) -> None:
        """Tells a pool who sleeps from now on, in place of the one before."""
        self._pool = pool
        pool.watcher = self
        self._publish()

    async def aclose(self) -> None:
        for root in self._pooling:
            HELD.pop(root, None)
        await stop_task(self._task)
        await self._actuator.aclose()
        for waiter in self._waiters:
            waiter.future.cancel()
        if self._lock is not None:
            self._lock.release()

    def started(self, expert: str) -> None:
        """A request is with an expert, as the pool tells it."""
        if (name := self._resident_of.get(expert)) is not None:
            self.scheduler.started(name)

    def ended(self, expert: str) -> None:
        if (name := self._resident_of.get(expert)) is not None:
            self.scheduler.ended(name)
            if self.scheduler.goal is not None:
                self._kick.set()

    @contextmanager
    def _held(self, loop: asyncio.AbstractEventLoop, name: str) -> Iterator[None]:
        """Keep an engine awake for a block in a thread. Raises BackendError as `wait_for`."""
        try:
            asyncio.run_coroutine_threadsafe(self._begin(name), loop).result()
        except CancelledError as error:
            raise asleep_error(name, "the gateway stops") from error
        try:
            yield
        finally:
            loop.call_soon_threadsafe(self.ended, name)

    async def _begin(self, name: str) -> None:
        self.note(f"named {name}", {name: 1.0}, None)
        await self.wait_for(name)
        self.started(name)

    @property
    def waiting(self) -> int:
        """Requests that wait for an engine."""
        return len(self._waiters)

    def is_waking(self, expert: str) -> bool:
        goal = self.scheduler.goal
        return goal is not None and goal.wakes == self._resident_of.get(expert)

    def note(self, category: str, quality: Mapping[str, float], begins: bool | None) -> None:
        """A request that was routed: predicted quality of each expert that might have served it, awake or not."""
        values: defaultdict[str, float] = defaultdict(float)
        for expert, value in quality.items():
            if (name := self._resident_of.get(expert)) is not None:
                values[name] = max(values[name], value)
        row = np.array([values[each.name] for each in self.scheduler.residents])
        self.scheduler.note(forward_clock(), category, row, begins)

    async def wait_for_one(self, experts: Collection[str]) -> None:
        """Has the first of these experts woken that can be; returns once one is awake, or none can be woken. Raises
        BackendError as `wait_for` does."""
        for expert in experts:
            with suppress(CannotWakeError):
                await self.wait_for(expert, experts)
                return

    async def wait_for(self, expert: str, others: Collection[str] = ()) -> None:
        """Returns once an expert's engine, or that of one of `others`, is awake. Raises BackendError 503: too many
        wait, or it takes too long; CannotWakeError."""
        scheduler, name = self.scheduler, self._resident_of[expert]
        any_of = frozenset(self._resident_of[each] for each in (expert, *others))
        if not any_of.isdisjoint(scheduler.serving):
            return
        if self.waiting >= self._wanted.max_waiting:
            raise asleep_error(expert, f"{self.waiting} requests already wait for engines, as many as may")
        if not scheduler.ask(forward_clock(), name):
            raise CannotWakeError(expert)
        waiter = Waiter(asyncio.get_running_loop().create_future(), name, any_of, scheduler.let_in[name])
        self._waiters.append(waiter)
        self._kick.set()
        try:
            async with asyncio.timeout(self._wanted.wait_s):
                await waiter.future
        except TimeoutError as error:
            raise asleep_error(expert, f"it did not wake within {self._wanted.wait_s:g} s") from error
        finally:
            self._waiters.remove(waiter)
            if scheduler.let_in[name] > waiter.let_in:  # from here on it counts on its own
                self.ended(expert)
            elif scheduler.is_asked(name):
                scheduler.gave_up(name)

    async def _run(self) -> None:
        while True:
            try:
                await self._look_and_change()
            except Exception as error:  # noqa: BLE001  a fault of ours must not leave the engines to nobody
                logger.error("residency: %s while engines were looked at; it keeps running", type(error).__name__)
                if self.scheduler.under_way is not None:
                    self.scheduler.failed(forward_clock(), Residency.STOPPED)
                self._observed_at_s = -math.inf
                await asyncio.sleep(LOOK_EVERY_S)

    async def _look_and_change(self) -> None:
        step = self.scheduler.step(forward_clock())
        self._publish()
        if step is not None:
            await self._make(step)
            return
        self._kick.clear()
        await happens(self._kick, LOOK_EVERY_S)
        now_s = forward_clock()
        if now_s - self._observed_at_s >= self._observe_every_s:
            await self.observe()
            self._observed_at_s = now_s

    async def _make(self, step: Step) -> None:
        """Makes a change, and measures it. A failure leaves the engine as it is found."""
        scheduler, before = self.scheduler, self.scheduler.states[step.resident]
        wakes, found = step.state is Residency.AWAKE, self.made[step.resident, step.state]
        began_s = forward_clock()
        try:
            await self._move(step)
        except (RouterError, OSError) as error:
            logger.warning("residency: %s did not become %s: %s", step.resident, step.state, error)
            found.failed += 1
            scheduler.failed(forward_clock(), await known_state(self._actuator, self._expert(step.resident)))
        else:
            took_s = forward_clock() - began_s
            found.count, found.seconds = found.count + 1, found.seconds + took_s
            field = TIME_OF.get((before if wakes else step.state, wakes))
            if field is not None:
                scheduler.measured(step.resident, **{field: took_s})
            scheduler.finished(forward_clock())
            logger.info("residency: %s is %s after %.1f s", step.resident, step.state, took_s)

    async def _move(self, step: Step) -> None:
        expert = self._expert(step.resident)
        if step.state is Residency.AWAKE:
            await self._actuator.wake(expert)
        elif step.state is Residency.STOPPED:
            await self._actuator.stop(expert)
        else:
            await self._actuator.sleep(expert, 1 if step.state is Residency.SLEEP_1 else 2)

    def _expert(self, name: str) -> str:
        return self.scheduler.residents[self.scheduler.index[name]].experts[0]

    async def observe(self) -> None:
        """Takes over what others changed: engines that ended, and that people woke."""
        scheduler = self.scheduler
        managed = [each for each in scheduler.residents if each.awake_gib > 0]
        found = await asyncio.gather(*(known_state(self._actuator, each.experts[0]) for each in managed))
        for each, state in zip(managed, found, strict=True):
            scheduler.observed(each.name, state)

    def _publish(self) -> None:
        """Tells the pool who sleeps, and those who wait how it went."""
        scheduler = self.scheduler
        serving = scheduler.serving | self._always
        if self._pool is not None:
            self._pool.set_asleep(frozenset(each for each, name in self._resident_of.items() if name not in serving))
        for waiter in self._waiters:
            if waiter.future.done():
                continue
            if not waiter.any_of.isdisjoint(serving) or scheduler.let_in[waiter.name] > waiter.let_in:
                waiter.future.set_result(None)
            elif not scheduler.is_asked(waiter.name):
                waiter.future.set_exception(CannotWakeError(waiter.name))


class CannotWakeError(BackendError):
    """An engine is failing, or those that stay awake leave no room for it."""

    def __init__(self, expert: str) -> None:
        reason = "its engine failed to wake, or those that stay awake leave no room for it"
        super().__init__(f"expert {expert} is asleep: {reason}", status=503, retry_after_s=RETRY_AFTER_S)


def asleep_error(expert: str, reason: str) -> BackendError:
    return BackendError(f"expert {expert} is asleep: {reason}", status=503, retry_after_s=RETRY_AFTER_S)


async def known_state(actuator: VllmActuator, expert: str) -> Residency:
    """The state of an engine. One that does not tell its state counts as stopped, because it answers nobody."""
    try:
        return await actuator.state(expert)
    except BackendError:
        return Residency.STOPPED
