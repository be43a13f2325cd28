"""Tells a gateway which of its engines are awake, and the process that has the turn what its requests want.

Every process has a controller. One of them has the turn and decides for all (`coordination.py`); alone, it always has.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, deque
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from coe.base.errors import BackendError
from coe.fleet.pool import ExpertPool
from coe.fleet.residency.changes import Changes, Made, forward_clock
from coe.fleet.residency.coordination import Coordination, Note, Report, View
from coe.fleet.residency.scheduler import Outlook, Scheduler, Step
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.fleet.tasks import happens, stop_task
from coe.router.residency_config import ResidencyConfig

LOOK_EVERY_S = 0.5
OBSERVE_EVERY_S = 5.0
EXCHANGE_EVERY_S = 0.2
RETRY_AFTER_S = 5.0
MOST_NOTES = 1000
"""Kept while nobody can be told of them."""

ALONE = 1
"""The turn of a process that shares its engines with no other."""

logger = logging.getLogger(__name__)


class Waiter(NamedTuple):
    """A request that has an engine woken; each of `any_of` would do."""

    future: asyncio.Future[None]
    name: str
    any_of: frozenset[str]


class Controller:
    """The engines of one gateway process.

    Args:
        actuator: changes engines, each named by one of its experts.
        coordination: where it meets the other processes of these engines; None where there are none.
        observe_every_s: so often engines are asked for their state, which others may change.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        actuator: VllmActuator,
        wanted: ResidencyConfig,
        *,
        coordination: Coordination | None = None,
        observe_every_s: float = OBSERVE_EVERY_S,
    ) -> None:
        self.scheduler, self._wanted = scheduler, wanted
        self._changes = Changes(scheduler, actuator)
        self.made: Mapping[tuple[str, Residency], Made] = self._changes.made  # by this process
        self._coordination, self._observe_every_s = coordination, observe_every_s
        self._resident_of = {expert: each.name for each in scheduler.residents for expert in each.experts}
        self._always = frozenset(each.name for each in scheduler.residents if not each.awake_gib)
        self.managed = frozenset(expert for expert, name in self._resident_of.items() if name not in self._always)
        self._waiters: list[Waiter] = []
        self._pool: ExpertPool | None = None
        self._running = Counter[str]()
        self.view = View()  # the engines as this process knows them
        self._turn = 0 if coordination else ALONE
        self.decides = coordination is None  # has the turn, and the account
        self._others: Mapping[str, Report] = {}
        self._notes = deque[Note](maxlen=MOST_NOTES)  # not told yet
        self._heard = deque[Note]()  # of others, not counted yet
        self._kick, self._has_news = asyncio.Event(), asyncio.Event()
        self._exchanging, self._catching_up = asyncio.Lock(), asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._versions = 0
        self._heard_at_s = self._told_at_s = self._observed_at_s = forward_clock()

    async def start(self, pool: ExpertPool) -> None:
        """Hears who decides or takes over, and looks at every engine."""
        await self._exchange()
        await (self._changes.observe() if self.decides or not self._turn else self._take_over())
        self.use(pool)
        self._tasks = [asyncio.create_task(self._run(), name="residency")]
        if self._coordination is not None:
            self._tasks.append(asyncio.create_task(self._exchange_always(), name="residency-coordination"))

    def use(self, pool: ExpertPool) -> None:
        """Tells a pool who sleeps from now on, in place of the one before."""
        self._pool = pool
        pool.watcher = self
        self._publish()

    async def aclose(self) -> None:
        for task in self._tasks:
            await stop_task(task)
        if self._coordination is not None:
            await self._coordination.aclose()
        await self._changes.aclose()
        for waiter in self._waiters:
            waiter.future.cancel()

    def started(self, expert: str) -> None:
        """A request is with an expert, as the pool tells it."""
        if (name := self._resident_of.get(expert)) is not None:
            self._running[name] += 1
            self.scheduler.started(name)

    def ended(self, expert: str) -> None:
        if (name := self._resident_of.get(expert)) is not None:
            self._running[name] -= 1
            self.scheduler.ended(name)
            if self.scheduler.goal is not None:
                self._kick.set()

    @property
    def is_behind(self) -> bool:
        """True in a process that was stopped for so long that others count without it, until it has heard from them."""
        return self._coordination is not None and forward_clock() - self._told_at_s > self._coordination.lease_s

    async def _catch_up(self) -> None:
        """Hears who is awake now, once for all who wait for it; looks for itself where that is not possible."""
        async with self._catching_up:
            if self.is_behind:
                if not await self._exchange():
                    await self._changes.observe()
                self._publish()

    @property
    def waiting(self) -> int:
        """Requests of this process that wait for an engine."""
        return len(self._waiters)

    def outlook(self, expert: str) -> Outlook | None:
        """The account of an expert's engine as of the last look; None where it has none."""
        return self.view.outlooks.get(self._resident_of.get(expert, ""))

    def is_waking(self, expert: str) -> bool:
        return self.view.goal is not None and self.view.goal.wakes == self._resident_of.get(expert)

    def note(self, category: str, quality: Mapping[str, float], begins: bool | None) -> None:
        """A request that was routed: predicted quality of each expert that might have served it, awake or not."""
        values: dict[str, float] = {}
        for expert, value in quality.items():
            if (name := self._resident_of.get(expert)) is not None:
                values[name] = max(values.get(name, 0.0), value)
        note = Note.model_construct(category=category, quality=values, begins=begins)
        if self.decides:
            self._count(note)
        else:
            self._notes.append(note)

    def _count(self, note: Note) -> None:
        values = np.array([note.quality.get(each.name, 0.0) for each in self.scheduler.residents])
        self.scheduler.note(forward_clock(), note.category, values, note.begins)

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
        await self._catch_up()
        name, any_of = self._resident_of[expert], frozenset(self._resident_of[each] for each in (expert, *others))
        if not any_of.isdisjoint(self.view.serving):
            return
        if self.decides and self.scheduler.is_failing(name, forward_clock()):
            raise CannotWakeError(expert)
        if self._is_cut_off():
            raise asleep_error(expert, "Redis, by which gateways agree who wakes engines, cannot be asked")
        if self.waiting >= self._wanted.max_waiting:
            raise asleep_error(expert, f"{self.waiting} requests already wait for engines, as many as may")
        waiter = Waiter(asyncio.get_running_loop().create_future(), name, any_of)
        self._waiters.append(waiter)
        self._kick.set()
        self._has_news.set()
        try:
            async with asyncio.timeout(self._wanted.wait_s):
                await waiter.future
        except TimeoutError as error:
            raise asleep_error(expert, f"it did not wake within {self._wanted.wait_s:g} s") from error
        finally:
            self._waiters.remove(waiter)

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
        await self._catch_up()
        if self._turn and not self.decides:
            await self._take_over()
        step = self._next_step() if self.decides else None
        self._publish()
        if step is not None:
            await self._changes.make(step, lambda: self._until_free(step))
            return
        self._kick.clear()
        await happens(self._kick, LOOK_EVERY_S)
        now_s, looks = forward_clock(), self.decides or self._is_cut_off()
        if looks and now_s - self._observed_at_s >= self._observe_every_s:
            await self._changes.observe()
            self._observed_at_s = now_s

    def _next_step(self) -> Step | None:
        while self._heard:
            self._count(self._heard.popleft())
        asked = {process: report.asked for process, report in self._others.items()}
        self._changes.follow({**asked, self._me: self._asked()})
        return self.scheduler.step(forward_clock())

    def _publish(self) -> None:
        """Tells the pool who sleeps, and those who wait how it went."""
        self._told_at_s = forward_clock()
        if self.decides or self._is_cut_off() or not self.view.version:
            self._look()
        serving, refused = self.view.serving | self._always, self.view.refused.get(self._me, frozenset())
        if self._pool is not None:
            self._pool.set_asleep(frozenset(each for each, name in self._resident_of.items() if name not in serving))
        for waiter in self._waiters:
            if waiter.future.done():
                continue
            if not waiter.any_of.isdisjoint(serving):
                waiter.future.set_result(None)
            elif waiter.name in refused:
                waiter.future.set_exception(CannotWakeError(waiter.name))

    def _look(self) -> None:
        """Takes the view from the scheduler of this process."""
        scheduler, before = self.scheduler, self.view
        turn = f"{self._turn}." if self.decides else ""  # no version of a process that was not told holds for others
        is_same = scheduler.serving == before.serving and turn and before.version.startswith(turn)
        if not is_same:
            self._versions += 1
            self._has_news.set()
        self.view = View(
            version=f"{turn}{self._versions}" if turn else "",
            serving=scheduler.serving,
            states=dict(scheduler.states),
            goal=scheduler.goal,
            outlooks=scheduler.policy.outlooks(forward_clock(), scheduler),
            refused=self._changes.refused,
        )

    async def _until_free(self, step: Step) -> None:
        """Returns once a change may be made: this process still has the turn, others know of it, and they send no
        requests to an engine that is to sleep. Raises BackendError."""
        self._publish()
        while self._coordination is not None:
            is_told = await self._exchange()
            if not self.decides:
                raise BackendError("another process decides now")
            has_left = all(
                report.view == self.view.version and not report.running.get(step.resident)
                for report in self._others.values()
            )
            if is_told and (step.state is Residency.AWAKE or has_left):
                return
            await asyncio.sleep(EXCHANGE_EVERY_S)

    @property
    def _me(self) -> str:
        return "" if self._coordination is None else self._coordination.me

    def _asked(self) -> frozenset[str]:
        return frozenset(each.name for each in self._waiters if not each.future.done())

    def _is_cut_off(self) -> bool:
        return self._coordination is not None and forward_clock() - self._heard_at_s > self._coordination.lease_s

    async def _exchange_always(self) -> None:
        while True:
            self._has_news.clear()
            if not await self._exchange() and not self.is_behind:
                self._told_at_s = forward_clock()  # Redis is away; this process was not stopped
            await happens(self._has_news, EXCHANGE_EVERY_S)

    async def _exchange(self) -> bool:
        """Tells the others and hears from them. Returns False where that was not possible."""
        if self._coordination is None:
            return True
        async with self._exchanging:
            notes = tuple(self._notes)
            self._notes.clear()
            running = {name: count for name, count in self._running.items() if count}
            report = Report.model_construct(view=self.view.version, running=running, asked=self._asked())
            try:
                heard = await self._coordination.exchange(
                    report, notes, self._turn, self.view if self.decides else None
                )
            except BackendError as error:
                self._notes.extendleft(reversed(notes))
                if self._turn and self._is_cut_off():
                    logger.warning("residency: no engine is changed until Redis can be asked: %s", error)
                    self._turn, self.decides = 0, False
                return False
            self._heard_at_s = self._told_at_s = forward_clock()
            if heard.turn != self._turn:
                self._turn, self.decides = heard.turn, False
            if not self.decides and heard.view is not None:
                self.view = heard.view
            self._others = heard.reports
            self._heard.extend(heard.notes)
            if not self._turn:
                self._publish()
            elif not self.decides or any(report.asked for report in heard.reports.values()):
                self._kick.set()
            return True

    async def _take_over(self) -> None:
        """Looks at every engine, and goes on with what the process before had begun."""
        turn = self._turn
        await self._changes.observe()
        self.scheduler.resume(self.view.goal)
        self.decides = self._turn == turn
        logger.info("residency: this process decides which engines are awake (turn %d)", turn)


class CannotWakeError(BackendError):
    """An engine is failing, or those that stay awake leave no room for it."""

    def __init__(self, expert: str) -> None:
        reason = "its engine failed to wake, or those that stay awake leave no room for it"
        super().__init__(f"expert {expert} is asleep: {reason}", status=503, retry_after_s=RETRY_AFTER_S)


def asleep_error(expert: str, reason: str) -> BackendError:
    return BackendError(f"expert {expert} is asleep: {reason}", status=503, retry_after_s=RETRY_AFTER_S)
