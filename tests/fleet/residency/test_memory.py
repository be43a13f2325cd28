"""Memory of engines by their state."""

from __future__ import annotations

from functools import partial

from coe.fleet.residency.memory import Memory, Resident, sleep_state
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler, Step
from coe.fleet.residency.types import Residency
from tests.fleet.residency.driver import resident


def moved(scheduler: Scheduler, name: str, before: Residency, found: Residency) -> Resident:
    """An engine that was to wake from a state, and how it was found then."""
    scheduler.observed(name, before)
    assert scheduler.ask(0.0, name)
    assert scheduler.step(0.0) == Step(name, Residency.AWAKE)
    if found is Residency.AWAKE:
        scheduler.finished(0.0)
    else:
        scheduler.failed(0.0, found)
    return scheduler.residents[scheduler.index[name]]


def test_level_1_comes_first_and_level_2_once_an_engine_came_back_from_it() -> None:
    scheduler = Scheduler((resident("a"),), Memory({"0": 80.0}, host_gib=40.0), ResidencyPolicy())
    (engine,) = scheduler.residents
    assert sleep_state(engine, 16.0) is Residency.SLEEP_1
    assert sleep_state(engine, 15.9) is Residency.SLEEP_2
    engine = moved(scheduler, "a", Residency.SLEEP_2, Residency.AWAKE)
    assert sleep_state(engine, 16.0) is Residency.SLEEP_2  # the shorter way for 8B
    engine = moved(scheduler, "a", Residency.SLEEP_2, Residency.STOPPED)
    assert sleep_state(engine, 16.0) is Residency.SLEEP_1
    assert sleep_state(engine, 15.9) is Residency.STOPPED
    engine = moved(scheduler, "a", Residency.SLEEP_1, Residency.STOPPED)
    assert sleep_state(engine, 16.0) is Residency.STOPPED


def test_pinned_host_memory_is_kept_until_the_process_ends() -> None:
    engines = (resident("a"), resident("b"))
    states = {"a": Residency.SLEEP_1, "b": Residency.AWAKE}
    scheduler = Scheduler(engines, Memory({"0": 22.0}, host_gib=20.0), ResidencyPolicy(), states)
    assert scheduler.ask(0.0, "a")
    assert scheduler.step(0.0) == Step("b", Residency.SLEEP_2)  # no room for its 16 GiB beside those of a
    scheduler.finished(0.0)
    assert scheduler.step(0.0) == Step("a", Residency.AWAKE)
    scheduler.finished(0.0)
    scheduler.ended("a")  # the request that waited
    assert scheduler.ask(1e6, "b")
    assert scheduler.step(1e6) == Step("a", Residency.SLEEP_1)  # in what it keeps
    scheduler.finished(1e6)
    free = partial(scheduler.memory.host_free_gib, engines, dict.fromkeys("ab", Residency.AWAKE))
    assert free(scheduler._kept) == 4.0
    scheduler.observed("a", Residency.STOPPED)
    assert free(scheduler._kept) == 20.0


def test_an_engine_that_starts_again_has_its_memory_and_sleeps_only_once_it_is_awake() -> None:
    engines = (resident("starts", 30.0), resident("wanted", 30.0))
    states = {"starts": Residency.STARTING, "wanted": Residency.SLEEP_2}
    scheduler = Scheduler(engines, Memory({"0": 31.5}), ResidencyPolicy(), states)
    assert scheduler.serving == frozenset()
    assert scheduler.ask(0.0, "wanted")
    assert scheduler.step(0.0) is None
    scheduler.observed("starts", Residency.AWAKE)
    assert scheduler.step(1.0) == Step("starts", Residency.SLEEP_2)
