"""Engines on GPUs: for any sizes, either a placement that fits at every step, or an error that names the engine."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from coe.base.errors import ConfigError
from coe.fleet.figures import USUAL
from coe.fleet.hosts.vllm_gpus import Needs, place

GPUS = st.lists(st.sampled_from([24.0, 40.0, 80.0]), min_size=1, max_size=4).map(
    lambda sizes: {str(number): size for number, size in enumerate(sizes)}
)
SIZES = st.lists(st.tuples(st.floats(2.0, 90.0), st.integers(1, 2)), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # most engines of any size fit no GPUs of any number
@given(GPUS, SIZES, st.booleans())
def test_those_awake_fit_and_so_does_each_other_engine_while_all_sleep(
    memory_gib: dict[str, float], sizes: list[tuple[float, int]], can_sleep: bool
) -> None:
    needs = [Needs(f"e{number}", gib, gpus) for number, (gib, gpus) in enumerate(sizes)]
    try:
        placement = place(needs, memory_gib, can_sleep=can_sleep)
    except ConfigError:
        assume(False)
    by_name = {each.name: each for each in needs}
    assert placement.awake <= by_name.keys()
    assert can_sleep or placement.awake == by_name.keys()
    for awake in (placement.awake, *({name} for name in by_name)):
        for device, size in memory_gib.items():
            there = [name for name in by_name if device in placement.devices[name]]
            used_gib = sum(by_name[name].gib if name in awake else USUAL.sleeper_gib for name in there)
            assert used_gib <= size + 1e-3
    for each in needs:
        assert len(set(placement.devices[each.name])) == each.gpus


@given(GPUS, st.lists(st.floats(2.0, 6.0), min_size=1, max_size=4))
def test_what_fits_together_is_awake_together(memory_gib: dict[str, float], sizes: list[float]) -> None:
    needs = [Needs(f"e{number}", gib) for number, gib in enumerate(sizes)]
    assert len(place(needs, memory_gib, can_sleep=True).awake) == len(needs)


def test_the_first_experts_are_awake_at_the_end_and_named_gpus_are_kept() -> None:
    needs = [Needs("coder", 66.0), Needs("writer", 54.0), Needs("large", 42.0, 2, ("0", "1"))]
    placement = place(needs, {"0": 80.0, "1": 80.0}, can_sleep=True)
    assert placement.devices == {"large": ("0", "1"), "coder": ("0",), "writer": ("1",)}
    assert placement.awake == {"coder", "writer"}


@pytest.mark.parametrize(
    ("need", "problem"),
    [
        (Needs("a", 90.0), "a: needs 1 GPU of 90.0 GiB; there are 0 with 80.0 GiB, 1 with 80.0 GiB"),
        (Needs("a", 9.0, 3), "a: needs 3 GPU of 9.0 GiB"),
        (Needs("a", 9.0, 1, ("7",)), "a: GPU 7 is not there; allowed: 0, 1"),
    ],
)
def test_what_has_no_room_is_named(need: Needs, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        place([need], {"0": 80.0, "1": 80.0}, can_sleep=True)


def test_engines_that_cannot_take_turns_are_told_how() -> None:
    needs = [Needs("a", 50.0), Needs("b", 50.0)]
    with pytest.raises(ConfigError, match="have no room for b; `residency`, and `enable-sleep-mode: true`"):
        place(needs, {"0": 80.0}, can_sleep=False)
