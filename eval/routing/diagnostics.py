"""Signs that a router has collapsed, degraded or not learned (HoME, arXiv 2408.05430; the figures are ours).

Shapes: k rows of the quality matrix, m experts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np

from eval.routing.routing_records import CategoryFinding, Diagnostics, FrontierPoint, ThinCell
from eval.routing.trial import MapEvidence, Trial
from router.types import GENERAL, Float64Array

RARE_SHARE = 0.01
LARGEST_SHARE = 0.99
"""Share of the spending above the least that the largest expert takes when it takes it all, but for rounding."""
CELL_ERROR = 0.1
NEEDED_PER_CELL = ceil((0.5 / CELL_ERROR) ** 2)
"""Graded answers that bring the standard error of a mean score in [0, 1] to at most 0.1, whatever the scores: 25."""
SHOWN_CELLS = 20


def diagnose(trial: Trial, frontier: Sequence[FrontierPoint]) -> Diagnostics | None:
    """Collects all findings; None without the evidence that the map was solved from. `frontier`: the router's points
    over active parameters, empty where sizes are unknown."""
    if trial.evidence is None:
        return None
    experts = trial.test.experts
    shares = np.bincount(trial.decided, minlength=len(experts)) / len(trial.decided)
    top = int(shares.argmax())
    thin = thin_cells(trial.evidence, experts)
    return Diagnostics(
        routing_entropy=routing_entropy(shares),
        top_expert=experts[top],
        top_share=float(shares[top]),
        rare={experts[e]: float(shares[e]) for e in np.argsort(shares) if shares[e] < RARE_SHARE},
        is_largest_always=largest_always(frontier, trial.sizes_b, experts),
        degraded=degraded(trial),
        underused=underused(trial),
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


def degraded(trial: Trial) -> tuple[CategoryFinding, ...]:
    """Categories of the map of which more than half of the test queries were too uncertain and went to general."""
    labels, found = np.asarray(trial.test.categories), []
    for category, n in Counter(trial.test.categories).most_common():
        share = float(trial.is_fallback[labels == category].mean())
        if category in trial.expert_of and category != GENERAL and share > 0.5:
            found.append(CategoryFinding(category=category, n=n, share=share, expert=trial.expert_of[GENERAL]))
    return tuple(found)


def underused(trial: Trial) -> tuple[CategoryFinding, ...]:
    """Categories whose expert in the map scores higher on the test queries than general's, and yet serves fewer."""
    labels, found = np.asarray(trial.test.categories), []
    served_by = trial.expert_of[GENERAL]
    for category, n in Counter(trial.test.categories).most_common():
        own, general = trial.numbers([trial.expert_of.get(category, served_by), served_by]).tolist()
        inside = labels == category
        to_own, to_general = ((trial.decided[inside] == expert).mean() for expert in (own, general))
        is_better = trial.scores[inside, own].mean() > trial.scores[inside, general].mean()
        if own != general and is_better and to_own < to_general:
            found.append(CategoryFinding(category=category, n=n, share=float(to_general), expert=served_by))
    return tuple(found)


def thin_cells(cells: MapEvidence, experts: Sequence[str]) -> list[ThinCell]:
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
