"""Choice of the experts to host: against brute force, and the greedy order beyond twelve experts."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.base.errors import InfeasibleBudgetError
from coe.router import hosting
from coe.router.hosting import Memory, greedy_subsets, hosted_experts, hosted_on_bases

SIZES = np.array([8.0, 9.0, 27.0, 70.0, 72.0])


def brute_force(quality: np.ndarray, sizes: np.ndarray, limit: float) -> float:
    fitting = [
        subset
        for r in range(1, len(sizes) + 1)
        for subset in combinations(range(len(sizes)), r)
        if sizes[list(subset)].sum() <= limit
    ]
    return max(float(quality[:, subset].max(axis=1).mean()) for subset in fitting)


def test_the_best_subset_is_found_for_every_limit() -> None:
    quality = np.random.default_rng(0).random((60, 5))
    limits = [8.0, 17.0, 44.0, 79.0, 120.0, 186.0]
    found = hosted_experts(quality, SIZES, limits)
    assert found.shape == (6, 5)
    for mask, limit in zip(found, limits, strict=True):
        assert SIZES[mask].sum() <= limit
        assert quality[:, mask].max(axis=1).mean() == pytest.approx(brute_force(quality, SIZES, limit))


def test_of_equal_subsets_the_smaller_is_hosted() -> None:
    quality = np.full((4, 5), 0.5)
    np.testing.assert_array_equal(hosted_experts(quality, SIZES, [200.0]), [[True, False, False, False, False]])


def test_a_limit_under_the_smallest_is_refused() -> None:
    with pytest.raises(InfeasibleBudgetError, match="smallest value that would do is 8"):
        hosted_experts(np.ones((2, 5)), SIZES, [20.0, 7.0])


def test_many_experts_are_added_greedily_and_never_worse_with_more_room() -> None:
    rng = np.random.default_rng(1)
    quality, sizes = rng.random((50, 17)), rng.integers(1, 30, 17).astype(float)
    limits = [60.0, 10.0, 30.0, 300.0]
    found = hosted_experts(quality, sizes, limits)
    values = {
        limit: quality[:, mask].max(axis=1).mean() if sizes[mask].sum() <= limit * 1.000001 else -1
        for limit, mask in zip(limits, found, strict=True)
    }
    assert 0 < values[10.0] <= values[30.0] <= values[60.0] <= values[300.0]
    assert values[300.0] == pytest.approx(quality.max(axis=1).mean())  # all fit


def test_greedy_is_near_the_best_where_that_can_be_told() -> None:
    quality = np.random.default_rng(2).random((60, 5))
    for limit in (17.0, 44.0, 100.0):
        mask = greedy_subsets(quality, SIZES, [limit])[0]
        assert SIZES[mask].sum() <= limit
        assert quality[:, mask].max(axis=1).mean() >= 0.95 * brute_force(quality, SIZES, limit)


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 4), st.floats(0, 40))
def test_on_shared_bases_the_best_of_all_subsets_is_found(seed: int, m: int, g: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    quality, group = rng.random((9, m)).round(2), rng.integers(0, g, m)
    own, bases = rng.choice([0.0, 0.1, 3.0, 9.0], m), rng.choice([0.0, 1.0, 7.0, 20.0], g)
    size = {
        subset: own[list(subset)].sum() + bases[np.unique(group[list(subset)])].sum()
        for r in range(1, m + 1)
        for subset in combinations(range(m), r)
    }
    fitting = [subset for subset, amount in size.items() if amount <= limit * (1 + 1e-6)]
    if not fitting:
        with pytest.raises(InfeasibleBudgetError):
            hosted_on_bases(quality, Memory(own, group, bases), limit)
        return
    found = hosted_on_bases(quality, Memory(own, group, bases), limit)
    assert size[tuple(np.flatnonzero(found).tolist())] <= limit * (1 + 1e-5)
    best = max(float(quality[:, subset].max(axis=1).mean()) for subset in fitting)
    assert quality[:, found].max(axis=1).mean() == pytest.approx(best)


@pytest.mark.parametrize("g", [12, 25])
@pytest.mark.parametrize("share", [0.2, 0.8])
def test_of_many_bases_few_sets_are_tried(monkeypatch: pytest.MonkeyPatch, g: int, share: float) -> None:
    """2^12 sets of bases took twenty seconds; of more than twelve a single base was hosted, or all."""
    rng, calls = np.random.default_rng(0), 0

    def counted(*arguments: object) -> np.ndarray:
        nonlocal calls
        calls += 1
        return hosted_experts(*arguments)

    monkeypatch.setattr(hosting, "hosted_experts", counted)
    group = np.concatenate([np.arange(g), rng.integers(0, g, g)])
    quality, own = rng.random((50, 2 * g)), np.repeat([0.0, 0.1], g)
    bases = rng.uniform(1, 70, g)
    found = hosted_on_bases(quality, Memory(own, group, bases), bases.sum() * share)
    assert calls <= hosting.MOST_TRIED
    assert own[found].sum() + bases[np.unique(group[found])].sum() <= bases.sum() * share * (1 + 1e-5)
    assert len(np.unique(group[found])) > 2
    assert quality[:, found].max(axis=1).mean() > 0.88


def test_sets_of_bases_that_are_likely_good_are_near_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    group = np.concatenate([np.arange(8), rng.integers(0, 8, 4)])
    quality, own, bases = rng.random((60, 12)), np.repeat([0.0, 2.0], [8, 4]), rng.uniform(1, 70, 8)
    for share in (0.1, 0.3, 0.6, 0.9):
        exact = hosted_on_bases(quality, Memory(own, group, bases), bases.sum() * share)
        with monkeypatch.context() as many:
            many.setattr(hosting, "EXHAUSTIVE_EXPERTS", 7)
            likely = hosted_on_bases(quality, Memory(own, group, bases), bases.sum() * share)
        assert quality[:, likely].max(axis=1).mean() >= 0.97 * quality[:, exact].max(axis=1).mean()
