"""The set of engines to have awake once one of them is woken. Pure.

Shapes: m residents, r rows of remembered requests, d devices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from coe.fleet.residency.demand import Float64Array
from coe.fleet.residency.memory import SLACK_GIB
from coe.fleet.residency.scheduler import Scheduler
from coe.fleet.residency.types import Residency

BoolArray = NDArray[np.bool_]


def best_of(rows: Float64Array, mask: BoolArray) -> Float64Array:
    """(r,) predicted quality of the best of some residents; 0 where there are none."""
    return np.asarray(rows[:, mask].max(axis=1, initial=0.0))


def set_with(number: int, now_s: float, weights: Float64Array, rows: Float64Array, view: Scheduler) -> BoolArray | None:
    """(m,) the set with an engine in it that remembered requests gain most by; None where it has no room.

    Of those that serve now the one that is missed least is put away until the rest fits, and then the one that gains
    most for its memory is added while there is room. That is done twice, with "missed least" by itself and for each
    GiB, and the better set is taken. Sleepers may be stopped for it, so they count as nothing here.
    """
    room = Room(view)
    kept = view.must_stay(now_s)
    kept[number] = True
    can_wake = np.array([not view.is_failing(each.name, now_s) for each in view.residents])
    found, most = None, -np.inf
    for share in (lambda lost, gib: lost, lambda lost, gib: lost / gib):
        mask = view.mask.copy()
        mask[number] = True
        if not room.reduce(mask, kept, weights, rows, share):
            return None
        room.fill(mask, can_wake, weights, rows)
        value = float(weights @ best_of(rows, mask))
        if value > most:
            found, most = mask, value
    return found


class Room:
    """GPU memory of engines when awake (m, d), and that of the devices (d,) without those that start again."""

    def __init__(self, view: Scheduler) -> None:
        devices = list(view.memory.device_gib)
        self._free_gib = np.array([view.memory.device_gib[device] for device in devices]) + SLACK_GIB
        self._gib = np.array(
            [
                [each.awake_gib / max(len(each.devices), 1) * each.devices.count(device) for device in devices]
                for each in view.residents
            ]
        ).reshape(len(view.residents), len(devices))
        starting = [view.states[each.name] is Residency.STARTING for each in view.residents]
        self._free_gib -= self._gib[starting].sum(axis=0)

    def reduce(
        self,
        mask: BoolArray,
        kept: BoolArray,
        weights: Float64Array,
        rows: Float64Array,
        share: Callable[[Float64Array, Float64Array], Float64Array],
    ) -> bool:
        """Puts engines away until the others fit. Returns False where they never do."""
        while (excess := np.maximum(self._gib[mask].sum(axis=0) - self._free_gib, 0.0)).any():
            useful_gib = np.minimum(self._gib, excess).sum(axis=1)
            free = np.flatnonzero(mask & ~kept & (useful_gib > 0))
            if not len(free):
                return False
            mask[free[np.argmin(share(losses(mask, weights, rows)[free], useful_gib[free]))]] = False
        return True

    def fill(self, mask: BoolArray, can_wake: BoolArray, weights: Float64Array, rows: Float64Array) -> None:
        """Adds engines that gain something while there is room, the most for their memory first."""
        while True:
            fits = (self._gib[mask].sum(axis=0) + self._gib <= self._free_gib).all(axis=1)
            gains = weights @ np.maximum(rows - best_of(rows, mask)[:, None], 0.0)
            useful = np.flatnonzero(fits & can_wake & ~mask & (gains > 0))
            if not len(useful):
                return
            mask[useful[np.argmax(gains[useful] / np.maximum(self._gib[useful].sum(axis=1), SLACK_GIB))]] = True


def losses(mask: BoolArray, weights: Float64Array, rows: Float64Array) -> Float64Array:
    """(m,) what requests lose if one engine of a set is put away; 0 for others."""
    awake = np.where(mask, rows, 0.0)
    ordered = np.partition(np.column_stack([np.zeros(len(rows)), awake]), -2, axis=1)
    lost = ordered[:, -1] - ordered[:, -2]
    return np.bincount(awake.argmax(axis=1), weights=weights * lost, minlength=len(mask)).astype(float)
