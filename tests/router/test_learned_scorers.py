"""Parts that the learned scorers share: the k largest are those that sorting finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.scorers.knn import STRIDE, largest


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 3),
    columns=st.integers(1, 20 * STRIDE),
    k=st.integers(1, 8),
    levels=st.sampled_from([2, 5, 10**6]),
)
def test_the_largest_are_what_sorting_finds(seed: int, n: int, columns: int, k: int, levels: int) -> None:
    """Few levels make ties, of which any may be taken, but none twice."""
    values = np.random.default_rng(seed).integers(levels, size=(n, columns)).astype(np.float32) / levels
    k = min(k, columns)
    found = largest(values, k)
    assert found.shape == (n, k)
    assert all(len(set(row)) == k for row in found.tolist())
    picked = np.sort(np.take_along_axis(values, found, axis=1), axis=1)
    assert np.array_equal(picked, np.sort(values, axis=1)[:, columns - k :])


@pytest.mark.parametrize("place", [0, 31, 1023, 1029])
def test_neither_a_row_s_first_nor_its_last_column_is_passed_over(place: int) -> None:
    """1,030 columns are 32 groups of 32 and six more."""
    values = np.zeros((1, 1030), dtype=np.float32)
    values[0, place] = 1.0
    assert place in largest(values, 3)[0]
