"""Sequence numbers as sorted ranges that do not touch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def merged(ranges: Iterable[range]) -> list[range]:
    """Return the same numbers in as few ranges as possible; the input may overlap and be unsorted."""
    joined: list[range] = []
    for each in sorted(ranges, key=lambda one: one.start):
        if joined and each.start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(joined[-1].stop, each.stop))
        else:
            joined.append(each)
    return joined


def ranges_of(numbers: Iterable[int]) -> list[range]:
    return merged(range(number, number + 1) for number in numbers)


def complement(covered: Sequence[range], stop: int) -> list[range]:
    """Return the numbers from 0 to `stop` - 1 that are in none of `covered`, which is merged."""
    edges = [0, *(edge for each in covered for edge in (each.start, each.stop)), stop]
    gaps = (range(start, min(end, stop)) for start, end in zip(edges[::2], edges[1::2], strict=True))
    return [gap for gap in gaps if gap]


def without(ranges: Iterable[range], numbers: set[int]) -> list[range]:
    """Return `ranges` without some of their numbers."""
    if not numbers:
        return list(ranges)
    return ranges_of(number for each in ranges for number in each if number not in numbers)


def count(ranges: Iterable[range]) -> int:
    return sum(map(len, ranges))


def named(ranges: Sequence[range], *, at_most: int = 20) -> str:
    """Return ranges as text, `3-5, 9`: the first `at_most` of them, then how many more there are."""
    names = [str(each.start) if len(each) == 1 else f"{each.start}-{each.stop - 1}" for each in ranges[:at_most]]
    more = len(ranges) - at_most
    return ", ".join([*names, f"and {more:,} more ranges"] if more > 0 else names)
