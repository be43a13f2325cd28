"""The best that can be done by knowing every arrival: sets of engines for windows of time, and a bound that no
sequence of sets exceeds, both by dynamic programming.

Shapes: w windows, k categories, m experts, s sets of experts that can be awake together, n requests, b blocks of
requests, p prices of a wake.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.fleet.residency.demand import Float64Array
from coe.fleet.residency.memory import Memory, Resident
from coe.fleet.residency.types import Residency

WINDOW_S = 300.0
LEAST_PRICE, MOST_PRICE, PRICE_STEP = 0.05, 100.0, 1.6
"""Of a wake, in quality of one request."""

BLOCK = 10
"""Requests between which the plan of the bound may change."""

BOUND_PRICES = 0.01 * 2.0 ** np.arange(12)

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Sets:
    """Sets of the experts that are worth waking, (s, m) as masks, the empty one first and smaller ones before larger.

    `added` holds, by expert and number of members, the places of sets with it and of the same sets without it.
    """

    masks: BoolArray
    added: tuple[tuple[int, IntArray, IntArray], ...]

    def best(self, quality: Float64Array) -> Float64Array:
        """(k, s) the quality of the best of each set, from that of experts (k, m)."""
        return np.stack([quality[:, mask].max(axis=1, initial=0.0) for mask in self.masks], axis=1)


def sets_of(quality: Float64Array, residents: Sequence[Resident], memory: Memory) -> Sets:
    """Every set that fits beside the others asleep. An expert that a smaller or equal one beats in every category of
    `quality` (k, m) is in none."""
    gib = np.array([each.awake_gib for each in residents])
    free_gib = memory.device_gib["0"]
    useful = [number for number in range(len(residents)) if not is_beaten(number, quality, gib)]
    found: list[tuple[int, ...]] = [()]
    layer: list[tuple[int, ...]] = [()]
    while layer:
        layer = [
            (*members, number)
            for members in layer
            for number in useful
            if (not members or number > members[-1]) and gib[[*members, number]].sum() <= free_gib + 1e-6
        ]
        found += layer
    place = {members: index for index, members in enumerate(found)}
    masks = np.zeros((len(found), len(residents)), dtype=bool)
    pairs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for members, index in place.items():
        masks[index, list(members)] = True
        for number in members:
            without = tuple(each for each in members if each != number)
            pairs.setdefault((len(members), number), []).append((index, place[without]))
    added = tuple((number, *np.array(pairs[size, number]).T) for size, number in sorted(pairs))
    return Sets(masks, added)


def is_beaten(number: int, quality: Float64Array, gib: Float64Array) -> bool:
    """Returns True where another expert needs no more memory and is nowhere worse; of equals the first stays."""
    no_worse = (quality >= quality[:, [number]]).all(axis=0) & (gib <= gib[number])
    equal = (quality == quality[:, [number]]).all(axis=0) & (gib == gib[number])
    return bool((no_worse & (~equal | (np.arange(len(gib)) < number)))[np.arange(len(gib)) != number].any())


def planned(gains: Float64Array, sets: Sets, first: BoolArray, wake_share: Float64Array, price: float) -> BoolArray:
    """(w, m) the experts awake in each window whose gains less the prices of their wakes are highest.

    Args:
        gains: (w, s) quality of a window's requests with a set awake.
        first: (m,) awake before the first window.
        wake_share: (m,) share of a window that a wake takes, in which the set without the expert serves.
    """
    value = np.where((sets.masks <= first).all(axis=1), 0.0, -np.inf)
    came_from = np.empty(gains.shape, dtype=np.int64)
    for window, gain in enumerate(gains):
        origin = np.arange(len(value))
        for _, larger, smaller in reversed(sets.added):  # an expert is put away
            is_better = value[larger] > value[smaller]
            value[smaller[is_better]] = value[larger[is_better]]
            origin[smaller[is_better]] = origin[larger[is_better]]
        for number, larger, smaller in sets.added:  # an expert is woken
            woken = value[smaller] - price - wake_share[number] * (gain[larger] - gain[smaller])
            is_better = woken > value[larger]
            value[larger[is_better]] = woken[is_better]
            origin[larger[is_better]] = origin[smaller[is_better]]
        came_from[window] = origin
        value = value + gain
    found = np.empty((len(gains), sets.masks.shape[1]), dtype=bool)
    at = int(value.argmax())
    for window in range(len(gains) - 1, -1, -1):
        found[window] = sets.masks[at]
        at = int(came_from[window, at])
    return found


def best_plan(
    counts: Float64Array,
    quality: Float64Array,
    residents: Sequence[Resident],
    memory: Memory,
    first: BoolArray,
    most_wakes: float,
) -> BoolArray:
    """(w, m) the experts awake in each window, with at most `most_wakes` wakes, for the requests (w, k) to come.

    The price of a wake is the least that keeps to this, to within a factor of `PRICE_STEP`.
    """
    sets = sets_of(quality, residents, memory)
    gains = counts @ sets.best(quality)
    share = np.array([wake_s(each) / WINDOW_S for each in residents])

    def plan(price: float) -> tuple[BoolArray, bool]:
        found = planned(gains, sets, first, share, price)
        return found, bool((found & ~np.vstack([first, found[:-1]])).sum() <= most_wakes)

    found, fits = plan(0.0)
    low, high = LEAST_PRICE, MOST_PRICE
    while not fits and high / low > PRICE_STEP:
        price = (low * high) ** 0.5
        tried, is_enough = plan(price)
        low, high = (low, price) if is_enough else (price, high)
        found = tried if is_enough else found
    return found


def most_quality(
    category: IntArray, quality: Float64Array, residents: Sequence[Resident], memory: Memory, wakes: Sequence[float]
) -> Float64Array:
    """The mean predicted quality that nobody who serves each request at once exceeds, by wakes in 1,000 requests.

    That of a relaxed problem: the future is known, a change takes no time, sleepers need no memory, the first set is
    free, and a block of requests in which an engine wakes is served as if all were awake. With a price of each wake
    (Lagrange), the highest quality less the prices, plus the price of all wakes allowed, is at least that of every plan
    with no more wakes, whatever the price.

    Args:
        category: (n,) of the requests in order.
        quality: (k, m) predicted.
    """
    n, sets = len(category), sets_of(quality, residents, memory)
    counts = np.zeros((-(-n // BLOCK), len(quality)))
    np.add.at(counts, (np.arange(n) // BLOCK, category), 1)
    values = best_values(counts @ sets.best(quality), counts @ quality.max(axis=1), sets)
    return np.array([(values + BOUND_PRICES * each * n / 1000).min() / n for each in wakes])


def best_values(gains: Float64Array, most: Float64Array, sets: Sets) -> Float64Array:
    """(p,) the highest quality less the prices of wakes.

    Args:
        gains: (b, s) of a block with a set awake throughout.
        most: (b,) of a block with all awake.
    """
    value = np.zeros((gains.shape[1], len(BOUND_PRICES)))
    for gain, all_awake in zip(gains, most, strict=True):
        for _, larger, smaller in reversed(sets.added):  # an expert is put away
            value[smaller] = np.maximum(value[smaller], value[larger])
        woken = value - BOUND_PRICES  # one that is put away again within the block
        for _, larger, smaller in sets.added:
            woken[larger] = np.maximum(woken[larger], np.maximum(value[smaller], woken[smaller]) - BOUND_PRICES)
        value = np.maximum(value + gain[:, None], woken + all_awake)
    return np.asarray(value.max(axis=0))


def wake_s(resident: Resident) -> float:
    """From the level whose cycle is shortest."""
    level = min((Residency.SLEEP_1, Residency.SLEEP_2), key=resident.times.cycle_s)
    return min(resident.times.wake_s(level), resident.times.cold_start_s)
