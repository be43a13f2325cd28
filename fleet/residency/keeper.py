"""Drives a residency scheduler in a gateway: its clock, its engines, and the requests that wait for one to wake."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

import numpy as np

from base.errors import BackendError, DataError
from fleet.pool import ExpertPool
from fleet.residency.scheduler import Outlook, Scheduler, Step
from fleet.residency.types import ANSWERING, Actuator, Residency
from fleet.tasks import stop_task

LOOK_EVERY_S = 0.5
OBSERVE_EVERY_S = 5.0
RETRY_AFTER_S = 5.0

TIME_OF = {
    (Residency.SLEEP_1, True): "wake_1_s",
    (Residency.SLEEP_2, True): "wake_2_s",
    (Residency.STOPPED, True): "cold_start_s",
    (Residency.SLEEP_1, False): "sleep_1_s",
    (Residency.SLEEP_2, False): "sleep_2_s",
}
"""Field of `TransitionTimes` by the state beside awake, and whether the engine woke."""

logger = logging.getLogger(__name__)


def forward_clock() -> float:
    """Unix seconds as of the start, then only forward."""
    return STARTED_S + time.monotonic()


STARTED_S = time.time() - time.monotonic()


class Keeper:
    """Makes the changes that a scheduler wants, in the one gateway process of these engines.

    Args:
        actuator: changes engines, each named by one of its experts.
        pinned: experts that people want awake now, read at every look.
        max_waiting: requests that may wait for engines at once.
        wait_s: longest wait of one.
        observe_every_s: so often engines are asked for their state, which others may change.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        actuator: Actuator,
        *,
        pinned: Callable[[], Collection[str]] = frozenset,
        waits_for_best: bool = False,
        max_waiting: int = 32,
        wait_s: float = 120.0,
        observe_every_s: float = OBSERVE_EVERY_S,
        clock: Callable[[], float] = forward_clock,
    ) -> None:
        self.scheduler, self.waits_for_best = scheduler, waits_for_best
        self._actuator, self._pinned, self._clock = actuator, pinned, clock
        self._max_waiting, self._wait_s, self._observe_every_s = max_waiting, wait_s, observe_every_s
        self._resident_of = {expert: each.name for each in scheduler.residents for expert in each.experts}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._pool: ExpertPool | None = None
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._observed_at_s = 0.0
        self._outlooks: Mapping[str, Outlook] = {}

    async def start(self, pool: ExpertPool) -> None:
        """Looks at every engine, then takes over."""
        await self._observe()
        self.use(pool)
        self._task = asyncio.create_task(self._run(), name="residency")

    def use(self, pool: ExpertPool) -> None:
        """Tells a pool who sleeps from now on, in place of the one before."""
        self._pool = pool
        pool.watcher = self
        self._publish()

    async def aclose(self) -> None:
        await stop_task(self._task)
        await self._actuator.aclose()
        for waiter in [each for waiters in self._waiters.values() for each in waiters]:
            waiter.cancel()

    def started(self, expert: str) -> None:
        """A request is with an expert, as the pool tells it."""
        if expert in self._resident_of:
            self.scheduler.started(self._resident_of[expert])

    def ended(self, expert: str) -> None:
        if expert in self._resident_of:
            self.scheduler.ended(self._resident_of[expert])
            if self.scheduler.goal is not None:
                self._kick.set()

    def outlook(self, expert: str) -> Outlook | None:
        """The account of an expert's engine as of the last look; None where it has none."""
        return self._outlooks.get(self._resident_of.get(expert, ""))

    def is_waking(self, expert: str) -> bool:
        goal = self.scheduler.goal
        return goal is not None and goal.wakes == self._resident_of.get(expert)

    def note_named(self, expert: str) -> None:
        """A request that named its expert, which another one would not do for: it counts as a whole answer."""
        self.note(f"named {expert}", {expert: 1.0}, expert, None)

    def note(self, category: str, quality: Mapping[str, float], served: str, begins: bool | None) -> None:
        """A request that was routed: predicted quality of each expert that might have served it, awake or not."""
        if served not in self._resident_of:
            return
        values = np.zeros(len(self.scheduler.residents))
        for expert, value in quality.items():
            if expert in self._resident_of:
                number = self.scheduler.index[self._resident_of[expert]]
                values[number] = max(values[number], value)
        self.scheduler.note(self._clock(), category, values, self._resident_of[served], begins)

    async def wait_for(self, expert: str) -> None:
        """Returns once an expert's engine is awake. Raises BackendError 503: too many wait, it takes too long, or it
        cannot be woken."""
        name = self._resident_of[expert]
        if name in self.scheduler.serving:
            return
        if sum(map(len, self._waiters.values())) >= self._max_waiting:
            raise asleep_error(expert, f"{self._max_waiting} requests already wait for engines, as many as may")
        if not self.scheduler.ask(self._clock(), name):
            raise asleep_error(expert, "its engine fails to wake, or those that stay awake leave no room for it")
        self._kick.set()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(name, []).append(waiter)
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter
        except TimeoutError as error:
            raise asleep_error(expert, f"it did not wake within {self._wait_s:g} s") from error
        finally:
            self._leave(name, waiter)

    def _leave(self, name: str, waiter: asyncio.Future[None]) -> None:
        """Ends a wait: who was let in counts on its own from here on, who was not gives up."""
        waiters = self._waiters.get(name, [])
        if waiter in waiters:
            waiters.remove(waiter)
            self.scheduler.gave_up(name)
        elif not waiter.cancelled() and waiter.exception() is None:
            self.scheduler.ended(name)

    async def _run(self) -> None:
        while True:
            step = self.scheduler.step(self._clock())
            self._publish()
            if step is not None:
                await self._make(step)
                continue
            self._kick.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._kick.wait()
            if self._clock() - self._observed_at_s >= self._observe_every_s:
                await self._observe()

    async def _make(self, step: Step) -> None:
        """Makes a change, and measures it. A failure leaves the engine as it is found."""
        resident = self.scheduler.residents[self.scheduler.index[step.resident]]
        expert, before, began_s = resident.experts[0], self.scheduler.state(step.resident), self._clock()
        wakes = step.state in ANSWERING
        try:
            if wakes:
                await self._actuator.wake(expert)
            elif step.state is Residency.STOPPED:
                await self._actuator.stop(expert)
            else:
                await self._actuator.sleep(expert, 1 if step.state is Residency.SLEEP_1 else 2)
        except BackendError as error:
            logger.warning("residency: %s did not become %s: %s", step.resident, step.state, error)
            self.scheduler.failed(self._clock(), await self._state(expert))
        else:
            field = TIME_OF.get((before if wakes else step.state, wakes))
            if field is not None:
                self.scheduler.measured(step.resident, **{field: self._clock() - began_s})
            self.scheduler.finished(self._clock())
            logger.info("residency: %s is %s after %.1f s", step.resident, step.state, self._clock() - began_s)
        self._publish()

    async def _state(self, expert: str) -> Residency:
        """The state of an engine; of one that does not say, stopped: it answers nobody."""
        try:
            return await self._actuator.state(expert)
        except BackendError:
            return Residency.STOPPED

    async def _observe(self) -> None:
        """Takes over what others changed: engines that ended, that people woke, and what they pinned."""
        managed = [each for each in self.scheduler.residents if each.awake_gib > 0]
        found = await asyncio.gather(*(self._state(each.experts[0]) for each in managed))
        for each, state in zip(managed, found, strict=True):
            self.scheduler.observed(each.name, state)
        self._observed_at_s = self._clock()
        try:
            pinned = self._pinned()
        except DataError as error:
            logger.warning("residency: what people pinned cannot be read, so that of before holds: %s", error)
        else:
            self.scheduler.keep({self._resident_of[expert] for expert in pinned if expert in self._resident_of})

    def _publish(self) -> None:
        """Tells the pool who sleeps, and those who wait how it went."""
        serving = self.scheduler.serving
        asleep = frozenset(expert for expert, name in self._resident_of.items() if name not in serving)
        if self._pool is not None:
            self._pool.set_asleep(asleep)
        self._outlooks = self.scheduler.policy.outlooks(self._clock(), self.scheduler)
        for name in [name for name in self._waiters if name in serving or not self.scheduler.is_asked(name)]:
            for waiter in self._waiters.pop(name):
                if waiter.done():
                    if name in serving:
                        self.scheduler.ended(name)  # it left while it was let in
                elif name in serving:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(asleep_error(name, "its engine failed to wake"))


def asleep_error(expert: str, reason: str) -> BackendError:
    return BackendError(f"expert {expert} is asleep: {reason}", status=503, retry_after_s=RETRY_AFTER_S)
