"""Who waits for an engine, and who is counted once it is awake."""

from __future__ import annotations

import asyncio

import pytest

from coe.fleet.processes.tasks import stop_task
from coe.fleet.residency.controller import CannotWakeError, Controller, forward_clock
from coe.fleet.residency.memory import Memory
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler, Step
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from coe.router.config.residency import ResidencyConfig
from tests.fleet.residency.driver import resident

LATER_S = 1e4
"""No engine is held any more by then."""


@pytest.mark.parametrize("leaves", ["before it wakes", "while it wakes", "once it is awake", "after it ended again"])
async def test_an_engine_can_be_put_away_whenever_its_waiting_clients_left(leaves: str) -> None:
    states = {"a": Residency.AWAKE, "b": Residency.SLEEP_2}
    scheduler = Scheduler((resident("a"), resident("b")), Memory({"0": 21.5}, 0.0), ResidencyPolicy(), states)
    controller = Controller(scheduler, VllmActuator(dict), ResidencyConfig(memory_gb=21.5))
    stays, goes = (asyncio.create_task(controller.wait_for("b")) for _ in range(2))
    await asyncio.sleep(0)
    assert controller.waiting == 2
    assert scheduler.step(forward_clock()) == Step("a", Residency.SLEEP_2)
    scheduler.finished(forward_clock())
    if leaves == "before it wakes":
        await stop_task(goes)
    assert scheduler.step(forward_clock()) == Step("b", Residency.AWAKE)
    if leaves == "while it wakes":
        await stop_task(goes)
    scheduler.finished(forward_clock())
    if leaves == "once it is awake":
        await stop_task(goes)
    if leaves == "after it ended again":
        scheduler.observed("b", Residency.STOPPED)
        await stop_task(goes)
        scheduler.observed("b", Residency.AWAKE)
    controller._publish()
    await asyncio.gather(stays, goes, return_exceptions=True)
    assert controller.waiting == 0
    assert scheduler.ask(forward_clock(), "a")
    assert scheduler.step(forward_clock() + LATER_S) == Step("b", Residency.SLEEP_2)


async def test_who_waits_for_an_engine_that_fails_hears_of_it() -> None:
    scheduler = Scheduler((resident("a"),), Memory({"0": 21.5}), ResidencyPolicy(), {"a": Residency.SLEEP_2})
    controller = Controller(scheduler, VllmActuator(dict), ResidencyConfig(memory_gb=21.5))
    waits = asyncio.create_task(controller.wait_for("a"))
    await asyncio.sleep(0)
    assert scheduler.step(forward_clock()) == Step("a", Residency.AWAKE)
    scheduler.failed(forward_clock(), Residency.SLEEP_2)
    controller._publish()
    with pytest.raises(CannotWakeError, match="its engine failed to wake"):
        await waits
    with pytest.raises(CannotWakeError):
        await controller.wait_for("a")
