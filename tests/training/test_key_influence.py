"""No key is more than its share of the evidence, and none is learned from and judged by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.training.feedback_bias import UNLIMITED, cap_level, clusters, counted_share, min_keys

TOTALS = st.lists(st.floats(0.01, 1000), min_size=1, max_size=12)


@given(TOTALS, st.floats(0, 500), st.floats(0.05, 0.9))
def test_at_the_level_nobody_exceeds_the_share_and_above_it_somebody_does(totals, others, share):
    said = np.array(totals)
    found = cap_level(said, others, share)
    capped = np.minimum(said, found)
    assert capped.max() <= share * (others + capped.sum()) * (1 + 1e-6) + 1e-9
    if np.isfinite(found):
        more = np.minimum(said, found * 1.01 + 1e-3)
        assert more.max() > share * (others + more.sum()) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("totals", "others", "expected"),
    [
        ([1000.0] + [5.0] * 20, 0.0, 25.0),  # a fifth of 125
        ([1000.0], 16.0, 4.0),  # a fifth of 20: sixteen grades and what counts of it
        ([1000.0, 900.0, 800.0], 16.0, 8.0),  # three voices of 8 beside 16 grades
        ([1000.0], 0.0, 0.0),
        ([10.0, 10.0, 10.0, 10.0], 0.0, 0.0),
        ([10.0, 10.0, 10.0, 10.0, 2.0], 0.0, 2.0),
        ([1.0] * 5, 0.0, np.inf),
    ],
)
def test_levels_by_hand(totals, others, expected):
    assert cap_level(np.array(totals), others, 0.2) == pytest.approx(expected)


def test_a_key_is_weighed_down_in_every_cell_by_itself():
    group = np.array([0] * 100 + [1] * 10 + [0, 0])
    key = np.array([0] * 100 + list(range(1, 11)) + [UNLIMITED] * 2)
    counted = counted_share(group, key, np.ones(112), np.array([14.0, 0.0]), 0.2)
    assert counted[:100] == pytest.approx(0.04)  # 4 beside 14 grades and 2 answers of a trusted key
    assert (counted[100:] == 1).all()


def test_a_share_of_one_limits_nobody():
    assert min_keys(1.0) == 1
    assert (
        counted_share(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64), np.ones(3), np.zeros(1), 1.0) == 1
    ).all()


def test_a_limited_key_is_one_voice_and_a_trusted_one_as_many_as_its_questions():
    found = clusters(np.array([7, 8, 7, 8]), np.array([3, 3, UNLIMITED, UNLIMITED]))
    assert len({*found.tolist()}) == 3
    assert found[0] == found[1]
