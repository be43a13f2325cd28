"""Learns from graded prompts whose answers are known which two experts to ask first, and whom where they differ.

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

CONTENDERS = 6
"""Experts that ways are made of, the best ones; more would be too many ways to try (ours)."""

MIN_IN_CATEGORY = 10
"""Fewest such prompts of a category that a strategy may serve (ours)."""

MOSTLY = 0.5
"""Least share of all prompts whose answers were compared, for `general` to be served by a strategy (ours)."""

CAUTION = 1.0
"""Standard errors that a way's lead over the best single expert loses: it was chosen among many (ours)."""

SURE = 2.0
"""Standard errors by which a way must lead over all prompts (ours)."""

PRIOR_ASKS = 20.0
"""Prompts of the mean over all categories that are mixed into a category's own mean of experts asked (ours)."""

PRICES = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Score that asking on must gain for what a mean expert costs: a way is kept that is best at one of them (ours)."""


def fit_strategies(data: GradedQueries, evidence: QualityMatrix, progress: Progress) -> Ways | None:
    """None where too few prompts have answers of all experts that can be compared.

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
    ways = list(ways_of(best_first(part.table.scores, part.table.experts)[:CONTENDERS]))
    found = [play(answers[is_known], way) for way in ways]
    scores = [played.scored(part.table.scores) for played in found]
    kept = worth_keeping(scores, found, amounts_of(part.table))
    single, rows = reference_of(evidence), np.array(part.decided)
    is_measured = np.bincount(rows, minlength=len(evidence.mass)) >= MIN_IN_CATEGORY
    is_measured[-1] = is_known.mean() >= MOSTLY
    gains = np.array([scores[v] - part.table.scores[:, single] for v in kept]).reshape(len(kept), len(rows)).T
    lead = surely_gained(gains, rows, len(evidence.mass) - 1)
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
    """Places of the experts by mean score (n, m), the best first; of equals by name, whatever order they are listed
    in."""
    mean = scores.mean(axis=0, dtype=np.float64)
    return sorted(range(len(experts)), key=lambda e: (-mean[e], experts[e]))


def ways_of(experts: Sequence[int]) -> Iterator[Agree]:
    """Every two with every other as arbiter."""
    for one, other in combinations(experts, 2):
        for arbiter in experts:
            if arbiter not in (one, other):
                yield Agree((one, other), arbiter)


def amounts_of(table: OutcomeTable) -> Float64Array:
    """(m,) what an expert costs: active parameters, else USD, else 1; as far as it is known of all."""
    sizes = np.array([table.active_params_b.get(name, np.nan) for name in table.experts])
    known = np.isfinite(table.cost_usd)
    dollars = np.where(known, table.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    for amounts in (sizes, dollars):
        if np.isfinite(amounts).all() and (amounts > 0).all():
            return np.asarray(amounts / amounts.mean(), dtype=np.float64)
    return np.ones(len(table.experts))


def worth_keeping(scores: Sequence[Float64Array], found: Sequence[Played], costs: Float64Array) -> list[int]:
    """The ways that are best over all prompts at some price of a call or of what experts cost."""
    if not found:  # two experts have no arbiter
        return []
    score = np.array([own.mean() for own in scores])
    asked = np.stack([played.asked.mean(axis=0) for played in found])
    best = {int(np.argmax(score - price * spent)) for spent in (asked.sum(axis=1), asked @ costs) for price in PRICES}
    return sorted(best)


def surely_gained(gains: Float64Array, rows: IntArray, k: int) -> Float64Array:
    """(k + 1, v) of the gains (n, v) over the best single expert: in a category as far as its standard error does not
    explain it, as that of an expert (router.quality.cautious_quality), and nothing where the way, the best of many, is
    not SURE to lead over all prompts.

    Args:
        rows: (n,) the category that each prompt is decided to be of; `general` has what all have in common.
    """
    gain, stderr = shrink(*cell_sums(gains, rows, k))
    leads = gains.mean(axis=0) > SURE * gains.std(axis=0) / np.sqrt(len(gains))
    return np.where(gain > 0, np.where(leads, np.maximum(gain - CAUTION * stderr, 0.0), 0.0), gain)


def mean_asked(asked: BoolArray, rows: IntArray, k: int) -> FloatArray:
    """(k + 1, m) how often each expert is asked per query of a row."""
    sums, _, counts = cell_sums(asked.astype(np.float64), rows, k)
    return np.asarray((sums + PRIOR_ASKS * asked.mean(axis=0)) / (counts + PRIOR_ASKS), dtype=np.float32)
