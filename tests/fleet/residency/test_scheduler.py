"""The scheduler keeps its promises under any traffic: memory, pins, running requests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.residency_rivals import OnDemand
from coe.fleet.residency.memory import Memory, Resident
from coe.fleet.residency.policies import Regret, Terms
from coe.fleet.residency.scheduler import ResidencyPolicy, Scheduler, Step
from coe.fleet.residency.types import SLEEPS, Residency
from tests.fleet.residency.driver import Driver, resident

IDLE = ResidencyPolicy()

POLICIES: dict[str, Callable[[tuple[Resident, ...]], ResidencyPolicy]] = {
    "regret": lambda engines: Regret(engines, Terms(memory_s=60)),
    "lru": lambda engines: OnDemand(len(engines)),
    "off": lambda engines: IDLE,
}


@st.composite
def engines(draw: st.DrawFn) -> tuple[Resident, ...]:
    number = draw(st.integers(2, 6))
    return tuple(
        resident(
            f"e{index}",
            awake_gib=draw(st.sampled_from([6.0, 20.0, 35.0])),
            params_b=draw(st.sampled_from([0.6, 8.0, 30.0])),
            devices=draw(st.sampled_from([("0",), ("1",), ("0", "1"), ("0", "0")])),
            passed=frozenset({Residency.SLEEP_2}) if draw(st.booleans()) else frozenset(),
            is_pinned=index == 0,
        )
        for index in range(number)
    )


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=10, derandomize=True)
@given(engines=engines(), seed=st.integers(0, 2**16), host_gib=st.sampled_from([0.0, 30.0, 200.0]))
def test_no_traffic_breaks_a_promise(name: str, engines: tuple[Resident, ...], seed: int, host_gib: float) -> None:
    rng = np.random.default_rng(seed)
    policy = POLICIES[name](engines)
    scheduler = Scheduler(engines, Memory({"0": 45.0, "1": 45.0}, host_gib), policy)
    driver = Driver(scheduler, service_s=float(rng.integers(1, 30)), fails=lambda step: bool(rng.uniform() < 0.1))
    quality = rng.uniform(size=(4, len(engines)))
    for _ in range(40):
        driver.until(driver.now_s + float(rng.integers(0, 12)))
        category = int(rng.integers(4))
        by_name = engines[int(rng.integers(len(engines)))].name if rng.uniform() < 0.2 or name == "lru" else None
        driver.request(str(category), list(quality[category]), by_name)
    driver.until(driver.now_s + 3000)
    assert all(count == 0 for count in driver.running.values())
    assert scheduler.is_failing("e0", driver.now_s) or "e0" in scheduler.serving
    assert driver.waiting == []


def test_regret_wakes_what_was_lost_and_puts_away_what_is_missed_least() -> None:
    residents = tuple(resident(each) for each in "abc")
    policy = Regret(residents, Terms(memory_s=300))
    states = {"a": Residency.AWAKE, "b": Residency.AWAKE, "c": Residency.SLEEP_2}
    scheduler = Scheduler(residents, Memory({"0": 41.5}, 0.0), policy, states)
    driver = Driver(scheduler)
    for _ in range(200):
        driver.until(driver.now_s + 2)
        driver.request("maths", [0.8, 0.4, 0.4])
        driver.request("code", [0.3, 0.4, 0.9])
    assert scheduler.serving == {"a", "c"}
    assert [(step.resident, step.state) for _, step in driver.steps] == [
        ("b", Residency.SLEEP_2),
        ("c", Residency.AWAKE),
    ]


def test_two_small_engines_are_woken_in_the_place_of_a_large_one_though_neither_alone_is_worth_it() -> None:
    residents = (resident("large", 40.0), resident("left", 19.0), resident("right", 19.0))
    policy = Regret(residents, Terms(memory_s=300))
    states = {"large": Residency.AWAKE, "left": Residency.SLEEP_2, "right": Residency.SLEEP_2}
    driver = Driver(Scheduler(residents, Memory({"0": 43.0}, 0.0), policy, states))
    for _ in range(200):
        driver.until(driver.now_s + 2)
        driver.request("maths", [0.6, 0.8, 0.1])
        driver.request("code", [0.6, 0.1, 0.8])
    assert driver.scheduler.serving == {"left", "right"}


def test_an_engine_asked_by_name_is_woken_when_the_running_request_of_its_victim_has_ended() -> None:
    residents = (resident("a"), resident("b"))
    scheduler = Scheduler(residents, Memory({"0": 21.5}, 0.0), IDLE, {"a": Residency.AWAKE, "b": Residency.SLEEP_2})
    driver = Driver(scheduler, service_s=40.0)
    driver.request("any", [1.0, 0.0])
    driver.until(5)
    driver.request("any", [1.0, 0.0], "b")
    driver.until(39)
    assert driver.steps == []
    assert scheduler.serving == frozenset()  # what is put away takes no more requests
    driver.until(60)
    assert scheduler.serving == {"b"}
    assert driver.waiting == []


def test_an_engine_that_was_woken_stays_for_two_of_its_cycles() -> None:
    residents = (resident("a"), resident("b"))
    scheduler = Scheduler(residents, Memory({"0": 21.5}, 0.0), IDLE, {"a": Residency.AWAKE, "b": Residency.SLEEP_2})
    assert scheduler.ask(0.0, "b")
    while scheduler.step(0.0) is not None:
        scheduler.finished(7.0)
    scheduler.ended("b")
    held_until_s = 7.0 + 2 * min(residents[1].times.cycle_s(state) for state in SLEEPS)
    assert scheduler.ask(held_until_s, "a")
    assert scheduler.step(held_until_s - 0.1) is None
    assert scheduler.step(held_until_s) == Step("b", Residency.SLEEP_2)


def test_an_engine_that_pins_leave_no_room_for_is_not_waited_for() -> None:
    residents = (resident("a", is_pinned=True), resident("b"))
    scheduler = Scheduler(residents, Memory({"0": 21.5}), IDLE, {"a": Residency.AWAKE, "b": Residency.SLEEP_2})
    assert not scheduler.ask(0.0, "b")
    assert not scheduler.is_asked("b")


def test_an_engine_that_fails_to_wake_is_left_alone_longer_each_time() -> None:
    scheduler = Scheduler((resident("a"),), Memory({"0": 25.0}), IDLE)
    for now_s, retry_s in ((0.0, 10.0), (20.0, 20.0)):
        assert scheduler.ask(now_s, "a")
        assert scheduler.step(now_s) is not None
        scheduler.failed(now_s, Residency.STOPPED)
        assert not scheduler.is_asked("a")  # whoever waits gets an error
        assert not scheduler.ask(now_s + retry_s - 1, "a")
    assert scheduler.ask(50.0, "a")


def test_an_engine_that_ends_while_it_wakes_is_started_for_who_waits() -> None:
    scheduler = Scheduler((resident("a"),), Memory({"0": 25.0}), IDLE, {"a": Residency.SLEEP_2})
    assert scheduler.ask(0.0, "a")
    assert scheduler.step(0.0) == Step("a", Residency.AWAKE)
    scheduler.failed(1.0, Residency.STARTING)
    assert scheduler.is_asked("a")
    assert scheduler.step(1.0) == Step("a", Residency.AWAKE)
    scheduler.failed(2.0, Residency.STOPPED)  # nor does it start
    assert not scheduler.is_asked("a")
    assert not scheduler.ask(3.0, "a")


def test_pins_and_states_that_exceed_the_memory_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pinned engines need 40\.0 GiB on device 0; allowed: at most 30\.0"):
        Scheduler((resident("a", is_pinned=True), resident("b", is_pinned=True)), Memory({"0": 30.0}), IDLE)
    with pytest.raises(ValueError, match="awake or asleep need"):
        Scheduler((resident("a"),), Memory({"0": 10.0}), IDLE, {"a": Residency.AWAKE})


def test_sleepers_are_stopped_where_what_they_keep_is_needed() -> None:
    residents = (resident("a", 30.0), resident("b", 5.0), resident("c", 5.0))
    states = {"a": Residency.STOPPED, "b": Residency.SLEEP_2, "c": Residency.SLEEP_2}
    scheduler = Scheduler(residents, Memory({"0": 32.0}), IDLE, states)
    assert scheduler.ask(0.0, "a")
    driver = Driver(scheduler)
    driver.until(120)
    assert scheduler.serving == {"a"}
    assert Residency.STOPPED in {scheduler.states["b"], scheduler.states["c"]}


def test_no_engine_is_stopped_that_could_as_well_sleep() -> None:
    """The five models of the CoE paper on 75 GiB: two are awake, and the largest is asked by name."""
    sizes = {"qwen-72b": 50.9, "qwen-7b": 18.2, "gemma-9b": 21.5, "gemma-27b": 63.6, "llama-70b": 49.4}
    engines = tuple(resident(name, awake_gib=gib) for name, gib in sizes.items())
    states = dict.fromkeys(sizes, Residency.SLEEP_2) | dict.fromkeys(("qwen-72b", "qwen-7b"), Residency.AWAKE)
    scheduler = Scheduler(engines, Memory({"0": 75.0}, 0.0), IDLE, states)
    scheduler.ask(1e6, "gemma-27b")
    steps = []
    while (step := scheduler.step(1e6)) is not None:
        steps.append((step.resident, step.state))
        scheduler.finished(1e6)
    assert steps[-1] == ("gemma-27b", Residency.AWAKE)
    assert sorted(steps[:-1]) == [("qwen-72b", Residency.SLEEP_2), ("qwen-7b", Residency.SLEEP_2)]
