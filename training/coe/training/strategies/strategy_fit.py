"""The fit of strategies on graded prompts with known answers: which two experts to ask first, and which arbiter.

Shapes: n prompts, k + 1 rows of the map, m experts, v ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from coe.cli.progress import Progress
from coe.router.quality import QualityMatrix, reference_of
from coe.router.strategies.agree import Agree
from coe.router.strategies.learned import NEVER, Played, Ways, play
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray
from coe.training.expert_map import cell_sums, shrink
from coe.training.graded_queries import GradedQueries
from coe.training.types import NOT_COMPARED, OutcomeTable

MIN_ANSWERED = 50
"""Fewest prompts with comparable answers that strategies are learned from (ours)."""

MAX_CONTENDERS = 6
"""Number of best experts that ways are built of (ours); more would be too many ways to try."""

MIN_IN_CATEGORY = 10
"""Fewest such prompts in a category that a strategy may serve (ours)."""

MIN_COMPARED_SHARE = 0.5
"""Smallest share of all prompts with compared answers at which a strategy may serve `general` (ours)."""

GAIN_PENALTY = 1.0
"""Standard errors subtracted from a way's gain over the best single expert, since it was chosen among many (ours)."""

MIN_GAIN_ERRORS = 2.0
"""Standard errors by which a way must exceed the best single expert over all prompts (ours)."""

PRIOR_ASKS = 20.0
"""Weight, in prompts, of the mean over all categories in a category's own mean of experts asked (ours)."""

PRICES = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Score that a further call must gain per cost of a mean expert (ours). A way that is best at one of them is kept."""


def fit_strategies(data: GradedQueries, evidence: QualityMatrix, progress: Progress) -> Ways | None:
    """Fit the ways to ask several experts; None if too few prompts have comparable answers of all experts.

    Args:
        evidence: the quality matrix whose reference expert the ways are measured against.
    """
    answers = data.table.answers
    if answers is None:
        return None
    is_known = np.array(np.isfinite(data.table.scores).all(axis=1) & (answers > NOT_COMPARED).any(axis=1))
    if is_known.sum() < MIN_ANSWERED:
        return None
    progress("trying ways to ask several experts")
    part = data.take(is_known)
    ways = list(ways_of(best_first(part.table.scores, part.table.experts)[:MAX_CONTENDERS]))
    found = [play(answers[is_known], way) for way in ways]
    scores = [played.scored(part.table.scores) for played in found]
    kept = select_ways(scores, found, amounts_of(part.table))
    single, rows = reference_of(evidence), np.array(part.decided)
    is_measured = np.bincount(rows, minlength=len(evidence.mass)) >= MIN_IN_CATEGORY
    is_measured[-1] = is_known.mean() >= MIN_COMPARED_SHARE
    gains = np.array([scores[v] - part.table.scores[:, single] for v in kept]).reshape(len(kept), len(rows)).T
    lead = cautious_gains(gains, rows, len(evidence.mass) - 1)
    cautious = shrink(*cell_sums(gains, rows, len(evidence.mass) - 1))[0] - gains.std(axis=0) / np.sqrt(len(gains))
    quality, cautious = (
        np.where(is_measured[:, None], evidence.quality[:, [single]] + each, NEVER) for each in (lead, cautious)
    )
    asks = [mean_asked(found[v].asked, rows, len(evidence.mass) - 1) for v in kept]
    return Ways(
        experts=np.array([ways[v].experts for v in kept], dtype=np.int64).reshape(len(kept), 3),
        quality=quality.astype(np.float32),
        asks=np.array(asks, dtype=np.float32).reshape(len(kept), *evidence.quality.shape).transpose(1, 0, 2),
        cautious=cautious.astype(np.float32),
    )


def best_first(scores: FloatArray, experts: Sequence[str]) -> list[int]:
    """Return the numbers of the experts by mean score (n, m), the best first. Equal experts are sorted by name, so
    their listed order has no effect."""
    mean = scores.mean(axis=0, dtype=np.float64)
    return sorted(range(len(experts)), key=lambda e: (-mean[e], experts[e]))


def ways_of(experts: Sequence[int]) -> Iterator[Agree]:
    """Yield every two experts with every other one as arbiter."""
    for one, other in combinations(experts, 2):
        for arbiter in experts:
            if arbiter not in (one, other):
                yield Agree((one, other), arbiter)


def amounts_of(table: OutcomeTable) -> Float64Array:
    """Return each expert's relative cost (m,): active parameters, else USD, else 1, whichever is known for all."""
    sizes = np.array([table.active_params_b.get(name, np.nan) for name in table.experts])
    known = np.isfinite(table.cost_usd)
    dollars = np.where(known, table.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    for amounts in (sizes, dollars):
        if np.isfinite(amounts).all() and (amounts > 0).all():
            return np.asarray(amounts / amounts.mean(), dtype=np.float64)
    return np.ones(len(table.experts))


def select_ways(scores: Sequence[Float64Array], found: Sequence[Played], costs: Float64Array) -> list[int]:
    """Return the ways that are best over all prompts at some price of a call or of the experts' cost."""
    if not found:  # two experts have no arbiter
        return []
    score = np.array([own.mean() for own in scores])
    asked = np.stack([played.asked.mean(axis=0) for played in found])
    best = {int(np.argmax(score - price * spent)) for spent in (asked.sum(axis=1), asked @ costs) for price in PRICES}
    return sorted(best)


def cautious_gains(gains: Float64Array, rows: IntArray, k: int) -> Float64Array:
    """Return the part of the gains (n, v) over the best single expert that is sure, of shape (k + 1, v). In a category
    it is less by the standard error, as an expert's is (router.quality.cautious_quality). Unless the way, the best of
    many, gains MIN_GAIN_ERRORS standard errors over all prompts, it is 0.

    Args:
        rows: the decided category of each prompt, of shape (n,); `general` has the mean of all.
    """
    gain, stderr = shrink(*cell_sums(gains, rows, k))
    leads = gains.mean(axis=0) > MIN_GAIN_ERRORS * gains.std(axis=0) / np.sqrt(len(gains))
    return np.where(gain > 0, np.where(leads, np.maximum(gain - GAIN_PENALTY * stderr, 0.0), 0.0), gain)


def mean_asked(asked: BoolArray, rows: IntArray, k: int) -> FloatArray:
    """Return how often each expert is asked per query of a row, of shape (k + 1, m)."""
    sums, _, counts = cell_sums(asked.astype(np.float64), rows, k)
    return np.asarray((sums + PRIOR_ASKS * asked.mean(axis=0)) / (counts + PRIOR_ASKS), dtype=np.float32)
