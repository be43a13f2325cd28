"""Chooses the experts to keep in memory. Shapes: n sample queries, m experts, g limits or bases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import InfeasibleBudgetError
from coe.router.price import SLACK
from coe.router.types import BoolArray, Float64Array, IntArray

EXHAUSTIVE_EXPERTS = 12
"""Up to so many experts every subset is tried, 4096 of them; beyond, experts are added greedily."""

SHARES_FOR_BASES = tuple(float(share) for share in np.linspace(0.3, 1.0, 15))
"""Of the limit, how much bases chosen greedily may take, so that room is left for more of their experts."""

MOST_TRIED = 300
"""Sets of bases whose experts are chosen, 20 ms each where that is exact; all there are of up to 8 bases."""


class Memory(NamedTuple):
    """Billions of parameters or bytes: `own` (m,) of each expert beside its base, `group` (m,) the number of its base,
    `bases` (g,) each of which counts once."""

    own: NDArray[np.floating]
    group: IntArray
    bases: NDArray[np.floating]

    def size(self, experts: BoolArray) -> float:
        """Size of some experts (m,) together."""
        return float(self.own[experts].sum() + self.bases[np.unique(self.group[experts])].sum())


def hosted_experts(quality: NDArray[np.floating], sizes: NDArray[np.floating], limits: Sequence[float]) -> BoolArray:
    """(g, m) the experts to host under each limit: the subset of highest mean over queries of its best expert's
    predicted quality whose sizes sum to at most the limit; of equal subsets the smaller.

    A facility location problem: exact up to 12 experts. Beyond, the better of two greedy orders, by gain and by gain
    per size (Khuller, Moss & Naor 1999), and never less than under a smaller limit.

    Args:
        quality: (n, m) predicted quality on queries that nothing was fitted on.
        sizes: (m,) billions of parameters or bytes.

    Raises:
        InfeasibleBudgetError: no expert fits within a limit.
    """
    values, wanted = np.asarray(quality, dtype=np.float64), np.asarray(sizes, dtype=np.float64)
    for limit in limits:
        if wanted.min() > limit * (1 + SLACK):
            raise InfeasibleBudgetError("hosted_params_b", limit, float(wanted.min()))
    if len(wanted) <= EXHAUSTIVE_EXPERTS:
        return best_subsets(values, wanted, limits)
    return greedy_subsets(values, wanted, limits)


def best_subsets(quality: Float64Array, sizes: Float64Array, limits: Sequence[float]) -> BoolArray:
    """Tries every subset once."""
    masks, means = zip(*subsets(quality, np.zeros(quality.shape[1], dtype=bool), 0, None), strict=True)
    table, value = np.array(masks), np.array(means)
    size = table @ sizes
    order = np.lexsort((size, -value.round(12)))
    found = []
    for limit in limits:
        fits = size[order] <= limit * (1 + SLACK)
        found.append(table[order[int(fits.argmax())]])
    return np.array(found)


def subsets(
    quality: Float64Array, mask: BoolArray, start: int, best: Float64Array | None
) -> Iterator[tuple[BoolArray, float]]:
    """Every subset that adds experts from `start` on to `mask`, with its mean quality. `best` (n,): that of `mask`."""
    for expert in range(start, len(mask)):
        grown = mask.copy()
        grown[expert] = True
        column = quality[:, expert] if best is None else np.maximum(best, quality[:, expert])
        yield grown, float(column.mean())
        yield from subsets(quality, grown, expert + 1, column)


def greedy_subsets(quality: Float64Array, sizes: Float64Array, limits: Sequence[float]) -> BoolArray:
    """The better greedy subset of each limit, or that of a smaller limit where it is better still."""

    def value(mask: BoolArray) -> float:
        return float(quality[:, mask].max(axis=1).mean())

    found: dict[int, BoolArray] = {}
    previous: list[BoolArray] = []
    for i in np.argsort(np.asarray(limits), kind="stable").tolist():
        tried = [greedy(quality, sizes, limits[i], divide) for divide in (np.ones_like(sizes), sizes)] + previous[-1:]
        found[i] = max(tried, key=value)
        previous.append(found[i])
    return np.array([found[i] for i in range(len(limits))])


def greedy(quality: Float64Array, sizes: Float64Array, limit: float, divide: Float64Array) -> BoolArray:
    """Adds the expert of largest gain in mean quality over `divide` (m,) while one fits and helps."""
    mask = np.zeros(len(sizes), dtype=bool)
    best = np.full(len(quality), min(float(quality.min()), 0.0))
    left = limit * (1 + SLACK)
    while True:
        gain = np.maximum(quality - best[:, None], 0.0).mean(axis=0) / np.maximum(divide, SLACK)
        gain[mask | (sizes > left)] = -1.0
        expert = int(gain.argmax())
        if gain[expert] < 0 or (gain[expert] == 0 and mask.any()):
            return mask
        mask[expert] = True
        left -= sizes[expert]
        best = np.maximum(best, quality[:, expert])


def hosted_on_bases(quality: NDArray[np.floating], memory: Memory, limit: float) -> BoolArray:
    """(m,) the experts to host within one limit when some share a base, whose size counts once.

    Sets of bases are tried, each with what `hosted_experts` chooses of its experts: first those that are likely good,
    then of up to 12 bases every set that could still be better, until `MOST_TRIED` were tried.

    Raises:
        InfeasibleBudgetError: not even the smallest expert on its base fits.
    """
    values, (own, group, group_sizes) = np.asarray(quality, dtype=np.float64), memory
    best: tuple[float, BoolArray] | None = None
    tried = 0
    for most, bases in sets_of_bases(values, memory, limit):
        if tried == MOST_TRIED or (best is not None and most <= best[0] + 1e-12):
            continue
        candidates = bases[group]
        left = limit * (1 + SLACK) - float(group_sizes[bases].sum())
        if not candidates.any() or float(own[candidates].min()) > left + SLACK * limit:
            continue
        tried += 1
        inside = hosted_experts(values[:, candidates], own[candidates], [max(left, float(own[candidates].min()))])[0]
        mask = np.zeros(len(own), dtype=bool)
        mask[np.flatnonzero(candidates)[inside]] = True
        value = float(values[:, mask].max(axis=1).mean())
        if best is None or value > best[0] + 1e-12:
            best = value, mask
    if best is None:
        raise InfeasibleBudgetError("hosted_params_b", limit, float((own + group_sizes[group]).min()))
    return best[1]


def sets_of_bases(quality: Float64Array, memory: Memory, limit: float) -> list[tuple[float, BoolArray]]:
    """Sets of bases (g,) that fit, each with the mean quality when all of its experts are hosted, the most that it can
    give. First each alone, all, and what is greedily chosen of them when a base counts for its best experts; then every
    set of few bases. Both best first, of equal ones the smaller first."""
    own, group, group_sizes = memory
    g = len(group_sizes)
    worst = float(quality.min())  # of a base without experts
    of_base = np.stack([quality[:, group == base].max(axis=1, initial=worst) for base in range(g)], axis=1)
    sizes = np.asarray(group_sizes, dtype=np.float64)
    least = sizes + [float(own[group == base].min(initial=np.inf)) for base in range(g)]
    limits = [limit * share for share in SHARES_FOR_BASES if limit * share >= least.min()]
    masks = [*np.eye(g, dtype=bool), np.ones(g, dtype=bool)]
    masks += list(greedy_subsets(of_base, least, limits)) if limits else []
    likely = [(mask, float(of_base[:, mask].max(axis=1).mean())) for mask in masks]
    every = list(subsets(of_base, np.zeros(g, dtype=bool), 0, None)) if g <= EXHAUSTIVE_EXPERTS else []
    fits = [
        [(most, mask) for mask, most in found if float(sizes[mask].sum()) <= limit * (1 + SLACK)]
        for found in (likely, every)
    ]
    return [pair for found in fits for pair in sorted(found, key=lambda p: (-p[0], float(sizes[p[1]].sum())))]


def hosted_beside(core: BoolArray, quality: NDArray[np.floating], memory: Memory, limit: float) -> BoolArray:
    """(m,) the experts of `core` (m,), which fit within the limit, and what is best hosted beside them. Arguments as
    `hosted_on_bases`: what the core takes is paid, and others count for what they are better than it."""
    is_paid = np.isin(np.arange(len(memory.bases)), memory.group[core])
    rest = Memory(np.where(core, 0.0, memory.own), memory.group, np.where(is_paid, 0.0, memory.bases))
    better = np.maximum(quality, quality[:, core].max(axis=1, keepdims=True))
    return core | hosted_on_bases(better, rest, max(limit - memory.size(core), 0.0))


def kept_in_memory(core: BoolArray, mean_quality: NDArray[np.floating], memory: Memory, limit: float) -> BoolArray:
    """(m,) the experts of a plan (m,), which fit within the limit, and in the room that they leave others, those of
    higher mean quality (m,) first."""
    kept = core.copy()
    for expert in np.argsort(-np.asarray(mean_quality), kind="stable").tolist():
        with_it = kept.copy()
        with_it[expert] = True
        if memory.size(with_it) <= limit * (1 + SLACK):
            kept = with_it
    return kept
