from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coe.decision_log.ranges import complement, count, merged, named, ranges_of, without

NUMBERS = st.sets(st.integers(0, 40))


@given(NUMBERS, st.integers(0, 45))
def test_covered_and_complement_are_all_numbers_once(numbers: set[int], stop: int) -> None:
    covered = ranges_of(numbers)
    assert [number for each in covered for number in each] == sorted(numbers)
    gaps = [number for each in complement(covered, stop) for number in each]
    assert gaps == [number for number in range(stop) if number not in numbers]
    assert count(covered) == len(numbers)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9))))
def test_merged_ranges_neither_touch_nor_change_what_is_covered(starts: list[tuple[int, int]]) -> None:
    given_ranges = [range(start, start + length) for start, length in starts]
    joined = merged(given_ranges)
    assert {n for each in joined for n in each} == {n for each in given_ranges for n in each}
    assert all(one.stop < other.start for one, other in pairwise(joined))


@given(NUMBERS, NUMBERS)
def test_without(numbers: set[int], gone: set[int]) -> None:
    left = without(ranges_of(numbers), gone)
    assert {n for each in left for n in each} == numbers - gone


def test_named() -> None:
    assert named([range(3, 6), range(9, 10)]) == "3-5, 9"
    assert named([range(n, n + 1) for n in range(0, 50, 2)], at_most=2) == "0, 2, and 23 more ranges"
