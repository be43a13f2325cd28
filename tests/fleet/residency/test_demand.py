"""Expectations of a scheduler: recent requests, the hour of the day, and conversations that began."""

from __future__ import annotations

import numpy as np
import pytest

from coe.fleet.residency.demand import MOST_GROWTH, Demand

QUALITY = np.array([0.5, 0.9])
DAY_S, HOUR_S = 86400.0, 3600.0


def test_more_is_expected_before_the_hour_in_which_more_came_on_days_before() -> None:
    demand = Demand(2, 1800.0, 0.0)
    for day, hour, requests in ((0, 9, 20), (0, 10, 200), (1, 9, 20), (1, 10, 200), (2, 9, 20)):
        for number in range(requests):
            maths = demand.note(day * DAY_S + (hour + number / requests) * HOUR_S, "maths", QUALITY)

    def growth(hour: float) -> float:
        now_s = 2 * DAY_S + hour * HOUR_S
        return float(demand.rows(now_s)[0][0] / (maths.mass * np.exp((maths.at_s - now_s) / 1800.0)))

    assert growth(9.4) == pytest.approx(1.0)
    assert growth(9.97) == pytest.approx(MOST_GROWTH)


def test_a_conversation_that_begins_counts_the_turns_to_come_and_they_count_nothing() -> None:
    demand = Demand(2, 1e9, 0.0)
    for turn in range(4):
        demand.note(0.0, "maths", QUALITY, begins=turn == 0)
    assert demand.rows(0.0)[0].sum() == pytest.approx(1.0)
    demand.note(0.0, "maths", QUALITY, begins=True)
    assert demand.rows(0.0)[0].sum() == pytest.approx(1.0 + 5 / 2)
    demand.note(0.0, "maths", QUALITY, begins=False)
    assert demand.rows(0.0)[0].sum() == pytest.approx(1.0 + 5 / 2)
