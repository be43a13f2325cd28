"""The closest values that never fall."""

from __future__ import annotations

from collections.abc import Sequence


def never_falling(values: Sequence[float]) -> list[float]:
    """The non-decreasing values of least squared distance to some, by pooling adjacent violators (Ayer et al. 1955)."""
    blocks: list[tuple[float, int]] = []  # sum and count
    for value in values:
        total, count = float(value), 1
        while blocks and blocks[-1][0] * count > total * blocks[-1][1]:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    return [total / count for total, count in blocks for _ in range(count)]
