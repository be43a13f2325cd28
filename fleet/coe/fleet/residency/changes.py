"""Changes of engines, made and measured."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import dataclass

from coe.base.errors import BackendError, RouterError
from coe.fleet.residency.scheduler import Scheduler, Step
from coe.fleet.residency.types import TIME_OF, Residency
from coe.fleet.residency.vllm_actuator import VllmActuator

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


class Changes:
    """Makes what a scheduler wants.

    Args:
        actuator: changes engines, each named by one of its experts.
    """

    def __init__(self, scheduler: Scheduler, actuator: VllmActuator) -> None:
        self._scheduler, self._actuator = scheduler, actuator
        self.made: defaultdict[tuple[str, Residency], Made] = defaultdict(Made)

    async def aclose(self) -> None:
        await self._actuator.aclose()

    async def make(self, step: Step) -> None:
        """Makes a change, and measures it. A failure leaves the engine as it is found."""
        scheduler, before = self._scheduler, self._scheduler.states[step.resident]
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
        return self._scheduler.residents[self._scheduler.index[name]].experts[0]

    async def observe(self) -> None:
        """Takes over what others changed: engines that ended, and that people woke."""
        scheduler = self._scheduler
        managed = [each for each in scheduler.residents if each.awake_gib > 0]
        found = await asyncio.gather(*(known_state(self._actuator, each.experts[0]) for each in managed))
        for each, state in zip(managed, found, strict=True):
            scheduler.observed(each.name, state)


async def known_state(actuator: VllmActuator, expert: str) -> Residency:
    """The state of an engine; of one that does not say, stopped: it answers nobody."""
    try:
        return await actuator.state(expert)
    except BackendError:
        return Residency.STOPPED
