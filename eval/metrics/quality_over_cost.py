"""Quality and cost as one number: AIQ (RouterBench, Hu et al. 2024, arXiv 2403.12031) and the score of RouterArena (Lu
et al. 2025, arXiv 2510.00202). Shapes: p points, h hull corners."""

from __future__ import annotations

from math import log2

import numpy as np

from router.types import Float64Array

CHEAPEST_USD, DEAREST_USD = 0.0044, 200.0
"""USD per 1,000 queries between which cost counts; outside them it counts as the nearer one."""
BETA = 0.1


def non_decreasing_hull(cost: Float64Array, quality: Float64Array) -> Float64Array:
    """Corners (h, 2) of the non-decreasing convex hull of points (cost, quality), cost rising.

    A coin between two routers reaches every point between them, so the hull is concave; a router never has to get worse
    when it may spend more, so quality never falls along it (RouterBench section 3.2). It starts at the null router,
    which answers nothing at no cost: (0, 0), as there. What costs more than the best point is left out.

    Raises:
        ValueError: no point, or a cost or quality that is negative or not finite.
    """
    points = np.column_stack([cost, quality]).astype(np.float64)
    if len(points) == 0 or not np.isfinite(points).all() or (points < 0).any():
        raise ValueError(f"points {points.tolist()}: expected at least one, each cost and quality finite and not < 0")
    points = np.vstack([[0.0, 0.0], points])
    hull: list[Float64Array] = []
    for point in points[np.lexsort((points[:, 1], points[:, 0]))]:
        if hull and point[1] <= hull[-1][1]:
            continue  # costs more and is not better
        while hull and point[0] == hull[-1][0]:
            hull.pop()
        while len(hull) > 1 and cross(hull[-2], hull[-1], point) >= 0:
            hull.pop()
        hull.append(point)
    return np.array(hull)


def cross(first: Float64Array, second: Float64Array, third: Float64Array) -> float:
    """Positive when `second` lies below the line from `first` to `third`, zero when on it."""
    return float((third[1] - first[1]) * (second[0] - first[0]) - (second[1] - first[1]) * (third[0] - first[0]))


def hull_quality(hull: Float64Array, cost: Float64Array | float) -> Float64Array:
    """Quality of the hull at some costs; beyond its last corner it stays level."""
    return np.asarray(np.interp(cost, hull[:, 0], hull[:, 1]), dtype=np.float64)


def aiq(cost: Float64Array, quality: Float64Array, largest_cost: float) -> float:
    """AIQ: the area under the non-decreasing convex hull from cost 0 to `largest_cost`, divided by `largest_cost`
    (RouterBench section 3.3, with its null router at no cost). In the unit of quality; larger is better.

    Args:
        cost: (p,) mean USD per query of the router at p settings.
        quality: (p,) its mean scores.
        largest_cost: the same for all that is compared, such as the mean cost of the most expensive expert.

    Raises:
        ValueError: `largest_cost` is not positive, or as `non_decreasing_hull`.
    """
    if not largest_cost > 0:
        raise ValueError(f"largest cost {largest_cost:g}; expected more than 0")
    hull = non_decreasing_hull(cost, quality)
    corners = np.concatenate([hull[hull[:, 0] < largest_cost, 0], [largest_cost]])
    return float(np.trapezoid(hull_quality(hull, corners), corners) / largest_cost)


def router_arena_score(mean_score: float, cost_per_1k_usd: float) -> float:
    """RouterArena's score S = (1 + b) A C / (b A + C) in [0, 1], with b = 0.1 and C = (log2 200 - log2 c) / (log2 200 -
    log2 0.0044).

    A is the accuracy, here the mean score, clamped to [0, 1] since rounding may leave it a hair above; c the cost in
    USD per 1,000 queries, clamped to [0.0044, 200].
    """
    accuracy = min(max(mean_score, 0.0), 1.0)
    clamped = min(max(cost_per_1k_usd, CHEAPEST_USD), DEAREST_USD)
    cheapness = (log2(DEAREST_USD) - log2(clamped)) / (log2(DEAREST_USD) - log2(CHEAPEST_USD))
    below = BETA * accuracy + cheapness
    return (1 + BETA) * accuracy * cheapness / below if below > 0 else 0.0
