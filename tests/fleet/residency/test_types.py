"""The cost of a change of state, by the published table."""

from __future__ import annotations

import pytest

from coe.fleet.residency.types import PUBLISHED, Residency, published_times


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_has_its_published_time(name: str) -> None:
    for params_b, seconds in PUBLISHED[name]:
        assert getattr(published_times(params_b), name) == pytest.approx(seconds)


def test_times_grow_with_size_and_level_2_is_the_cheaper_cycle_from_8b() -> None:
    sizes = [0.1, 0.6, 1.5, 4, 8, 14, 32, 70, 235, 400]
    times = [published_times(size) for size in sizes]
    for name in PUBLISHED:
        values = [getattr(each, name) for each in times]
        assert values == sorted(values)
    small, large = published_times(0.6), published_times(8)
    assert small.cycle_s(Residency.SLEEP_1) < small.cycle_s(Residency.SLEEP_2)
    assert large.cycle_s(Residency.SLEEP_2) < large.cycle_s(Residency.SLEEP_1)
    assert large.wake_s(Residency.AWAKE) == 0 == large.sleep_s(Residency.AWAKE)
