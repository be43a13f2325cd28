"""Expectations of a scheduler: recent requests, and conversations that began."""

from __future__ import annotations

import numpy as np
import pytest

from coe.fleet.residency.demand import Demand

QUALITY = np.array([0.5, 0.9])


def test_a_conversation_that_begins_counts_the_turns_to_come_and_they_count_nothing() -> None:
    demand = Demand(2, 1e9)
    for turn in range(4):
        demand.note(0.0, "maths", QUALITY, begins=turn == 0)
    assert demand.rows(0.0)[0].sum() == pytest.approx(1.0)
    demand.note(0.0, "maths", QUALITY, begins=True)
    assert demand.rows(0.0)[0].sum() == pytest.approx(1.0 + 5 / 2)
    demand.note(0.0, "maths", QUALITY, begins=False)
    assert demand.rows(0.0)[0].sum() == pytest.approx(1.0 + 5 / 2)
