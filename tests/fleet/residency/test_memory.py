"""Memory of engines by their state."""

from __future__ import annotations

from coe.fleet.residency.memory import Memory
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler, Step
from coe.fleet.residency.types import Residency
from tests.fleet.residency.driver import resident


def test_an_engine_that_starts_again_has_its_memory_and_sleeps_only_once_it_is_awake() -> None:
    engines = (resident("starts", 30.0), resident("wanted", 30.0))
    states = {"starts": Residency.STARTING, "wanted": Residency.SLEEP_2}
    scheduler = Scheduler(engines, Memory({"0": 31.5}), ResidencyPolicy(), states)
    assert scheduler.serving == frozenset()
    assert scheduler.ask(0.0, "wanted")
    assert scheduler.step(0.0) is None
    scheduler.observed("starts", Residency.AWAKE)
    assert scheduler.step(1.0) == Step("starts", Residency.SLEEP_2)
