"""Signs that a router has collapsed, degraded or not learned (HoME, arXiv 2408.05430; the figures are ours).

Shapes: n test queries, k rows of the quality matrix, m experts, g frontier points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from eval.routing.routing_records import CategoryFinding, Diagnostics, FrontierPoint, ThinCell
from router.types import GENERAL, BoolArray, Float64Array, IntArray

RARE_SHARE = 0.01
LARGEST_SHARE = 0.99
"""Share of the spending above the least that the largest expert takes when it takes it all, but for rounding."""
CELL_ERROR = 0.1
NEEDED_PER_CELL = ceil((0.5 / CELL_ERROR) ** 2)
"""Graded answers that bring the standard error of a mean score in [0, 1] to at most 0.1, whatever the scores: 25."""
SHOWN_CELLS = 20


@dataclass(frozen=True)
class Routed:
    """The router's choices on the test queries: `chosen` (n,) expert numbers, `scores` (n, m), true `categories`,
    `is_fallback` (n,) sent to general, `expert_of` the map by category, `general` the expert number of general."""

    chosen: IntArray
    scores: Float64Array
    categories: Sequence[str]
    is_fallback: BoolArray
    expert_of: Mapping[str, str]
    experts: Sequence[str]

    @property
    def general(self) -> str:
        return self.expert_of[GENERAL]


@dataclass(frozen=True)
class Cells:
    """Graded answers behind the quality matrix: `count` (k, m) with the names of its rows."""

    categories: Sequence[str]
    count: Float64Array


def diagnose(routed: Routed, cells: Cells, frontier: Sequence[FrontierPoint], sizes: Float64Array) -> Diagnostics:
    """Collects all findings. `frontier`: the router's points over active parameters, empty where sizes (m,) are
    unknown."""
    shares = np.bincount(routed.chosen, minlength=len(routed.experts)) / len(routed.chosen)
    top = int(shares.argmax())
    thin = thin_cells(cells, routed.experts)
    return Diagnostics(
        routing_entropy=routing_entropy(shares),
        top_expert=routed.experts[top],
        top_share=float(shares[top]),
        rare={routed.experts[e]: float(shares[e]) for e in np.argsort(shares) if shares[e] < RARE_SHARE},
        is_largest_always=largest_always(frontier, sizes, routed.experts),
        degraded=degraded(routed),
        underused=underused(routed),
        needed_per_cell=NEEDED_PER_CELL,
        thin=tuple(thin[:SHOWN_CELLS]),
        n_thin=len(thin),
    )


def routing_entropy(shares: Float64Array) -> float:
    """Entropy of the experts' shares (m,) over log m: 0 when one serves all, 1 when all serve equally."""
    used = shares[shares > 0]
    return abs(float((used * np.log(used)).sum() / np.log(max(len(shares), 2))))


def largest_always(points: Sequence[FrontierPoint], sizes: Float64Array, experts: Sequence[str]) -> bool | None:
    """Returns True where, at every budget, all that is spent above the least goes to the largest expert: a router that
    only mixes the smallest with the largest expert has learned nothing about the others. None with fewer than three
    experts of different sizes, or without points."""
    if not points or len(np.unique(sizes)) < 3:
        return None
    largest, least = int(sizes.argmax()), float(sizes.min())
    for point in points:
        spent = sum(share * (float(sizes[experts.index(name)]) - least) for name, share in point.shares.items())
        on_largest = point.shares.get(experts[largest], 0.0) * (float(sizes[largest]) - least)
        if spent > 0 and on_largest < LARGEST_SHARE * spent:
            return False
    return True


def degraded(routed: Routed) -> tuple[CategoryFinding, ...]:
    """Categories of the map of which more than half of the test queries were too uncertain and went to general."""
    labels = np.asarray(routed.categories)
    found = []
    for category, n in Counter(routed.categories).most_common():
        share = float(routed.is_fallback[labels == category].mean())
        if category in routed.expert_of and category != GENERAL and share > 0.5:
            found.append(CategoryFinding(category=category, n=n, share=share, expert=routed.general))
    return tuple(found)


def underused(routed: Routed) -> tuple[CategoryFinding, ...]:
    """Categories whose expert in the map scores higher on the test queries than general's, and yet serves fewer."""
    labels = np.asarray(routed.categories)
    number = {name: i for i, name in enumerate(routed.experts)}
    general = number[routed.general]
    found = []
    for category, n in Counter(routed.categories).most_common():
        own = number[routed.expert_of.get(category, routed.general)]
        inside = labels == category
        to_own, to_general = ((routed.chosen[inside] == expert).mean() for expert in (own, general))
        is_better = routed.scores[inside, own].mean() > routed.scores[inside, general].mean()
        if own != general and is_better and to_own < to_general:
            found.append(CategoryFinding(category=category, n=n, share=float(to_general), expert=routed.general))
    return tuple(found)


def thin_cells(cells: Cells, experts: Sequence[str]) -> list[ThinCell]:
    """Cells with fewer than `NEEDED_PER_CELL` graded answers, fewest first; `general` cannot be sampled from."""
    is_learned = np.array([category != GENERAL for category in cells.categories])
    rows, columns = np.nonzero((cells.count < NEEDED_PER_CELL) & is_learned[:, None])
    order = np.argsort(cells.count[rows, columns], kind="stable")
    return [
        ThinCell(
            category=cells.categories[rows[i]],
            expert=experts[columns[i]],
            count=int(cells.count[rows[i], columns[i]]),
            missing=NEEDED_PER_CELL - int(cells.count[rows[i], columns[i]]),
        )
        for i in order
    ]
