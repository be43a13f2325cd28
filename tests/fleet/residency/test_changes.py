"""Who waits for an engine, and who is counted once it is awake."""

from __future__ import annotations

import pytest

from coe.fleet.residency.changes import Changes, forward_clock
from coe.fleet.residency.memory import Memory
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler, Step
from coe.fleet.residency.types import Residency
from coe.fleet.residency.vllm_actuator import VllmActuator
from tests.fleet.residency.driver import resident

LATER_S = 1e4
"""No engine is held any more by then."""


@pytest.mark.parametrize("leaves", ["before it wakes", "while it wakes", "once it is awake", "after it ended again"])
def test_an_engine_can_be_put_away_whenever_its_waiting_client_left(leaves: str) -> None:
    states = {"a": Residency.AWAKE, "b": Residency.SLEEP_2}
    scheduler = Scheduler((resident("a"), resident("b")), Memory({"0": 21.5}, 0.0), ResidencyPolicy(), states)
    changes = Changes(scheduler, VllmActuator(dict))
    changes.follow({"": {"b"}, "other": {"b"}})
    assert scheduler.step(forward_clock()) == Step("a", Residency.SLEEP_2)
    scheduler.finished(forward_clock())
    if leaves == "before it wakes":
        changes.follow({"other": {"b"}})
    assert scheduler.step(forward_clock()) == Step("b", Residency.AWAKE)
    scheduler.finished(forward_clock())  # a change takes time in which nobody is followed
    if leaves == "once it is awake":
        changes.follow({"": {"b"}, "other": {"b"}})
    if leaves == "after it ended again":
        scheduler.observed("b", Residency.STOPPED)
        changes.follow({})
        scheduler.observed("b", Residency.AWAKE)
    changes.follow({})
    assert scheduler.ask(forward_clock(), "a")
    assert scheduler.step(forward_clock() + LATER_S) == Step("b", Residency.SLEEP_2)
