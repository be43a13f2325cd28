"""Learns strategies from graded prompts whose answers are known: the weights of votes, and ways to ask.

The score that is recorded of a way was measured on prompts that its votes and rules were not fitted on; as asked count
all whom they or the votes and rules that serve ask.

Shapes: n prompts, d dimensions, k + 1 rows of the map, m experts, v ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from coe.cli.progress import Progress
from coe.router.quality import QualityMatrix, reference_of
from coe.router.strategies.learned import NEVER, NOBODY, LearnedStrategies, Variants, with_bias
from coe.router.strategies.machines import SIGNALS, TELLS
from coe.router.types import BoolArray, Float64Array, FloatArray, IntArray
from coe.training.expert_map import cell_sums, shrink
from coe.training.graded_queries import GradedQueries
from coe.training.strategies.rehearsal import Known
from coe.training.strategies.vote_fit import Ballots, fit_votes
from coe.training.strategies.ways import PRICES, WAYS, Company, Way
from coe.training.types import NO_ANSWER, NOT_COMPARED

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


def fit_strategies(
    data: GradedQueries, evidence: QualityMatrix, rng: np.random.Generator, progress: Progress
) -> LearnedStrategies | None:
    """None where too few prompts have answers of all experts that can be compared. Fitted with the best expert first,
    so that neither random draws nor ties depend on the order in which experts are listed.

    Args:
        evidence: the quality matrix whose reference expert the ways are measured against.
    """
    answers = data.table.answers
    if answers is None or len(data.table.experts) < 2:
        return None
    is_known = np.array(np.isfinite(data.table.scores).all(axis=1) & (answers > NOT_COMPARED).any(axis=1))
    if is_known.sum() < MIN_ANSWERED:
        return None
    progress("fitting the votes of several experts")
    order = best_first(data.table.scores[is_known], data.table.experts)
    part, evidence = in_order(data.take(is_known), order), evidence.columns(order)
    assert part.table.answers is not None
    ballots = Ballots(np.maximum(part.table.answers, NO_ANSWER), part.table.scores.astype(np.float64), part.embeddings)
    logprobs = None if part.table.logprobs is None else part.table.logprobs.astype(np.float64)
    known = Known(ballots.keys, ballots.scores, unseen_weights(ballots, part.folds, rng), logprobs)
    weights = fit_votes(ballots, rng)
    served = replace(known, weights=(with_bias(ballots.embeddings) @ weights).astype(np.float64))
    company = Company(tuple(range(len(order)))[:CONTENDERS], amounts_of(part))
    progress("trying ways to ask several experts")
    single, rows = reference_of(evidence), np.array(part.decided)
    is_measured = np.bincount(rows, minlength=len(evidence.mass)) >= MIN_IN_CATEGORY
    is_measured[-1] = is_known.mean() >= MOSTLY
    variants = {}
    for name, ways in WAYS.items():
        kept = worth_keeping(list(ways(known, part.folds, company, served)), company.costs)
        variants[name] = measured(kept, known.scores, single, rows, evidence.quality[:, single], is_measured)
    return LearnedStrategies(weights, variants).among(np.argsort(order).tolist())


def best_first(scores: FloatArray, experts: Sequence[str]) -> list[int]:
    """Places of the experts by mean score (n, m), the best first; of equals by name."""
    mean = scores.mean(axis=0, dtype=np.float64)
    return sorted(range(len(experts)), key=lambda e: (-mean[e], experts[e]))


def in_order(data: GradedQueries, order: Sequence[int]) -> GradedQueries:
    """The same with experts in another order; an answer's number is that of the first who gave it."""
    table, columns = data.table, {name: values[:, order] for name, values in data.table.matrices.items()}
    keys = columns["answers"]
    first = (keys[:, :, None] == keys[:, None, :]).argmax(axis=2)
    columns["answers"] = np.where(keys < 0, keys, first)
    return replace(data, table=replace(table, experts=tuple(table.experts[e] for e in order), **columns))


def unseen_weights(ballots: Ballots, folds: IntArray, rng: np.random.Generator) -> Float64Array:
    """(n, m + 1) weights of votes fitted on the other folds."""
    found = np.zeros((len(folds), ballots.keys.shape[1] + 1))
    for fold in np.unique(folds):
        own = folds == fold
        found[own] = with_bias(ballots.embeddings[own]) @ fit_votes(ballots.take(~own), rng)
    return found


def amounts_of(data: GradedQueries) -> Float64Array:
    """(m,) what an expert costs: active parameters, else USD, else 1; as far as it is known of all."""
    table = data.table
    sizes = np.array([table.active_params_b.get(name, np.nan) for name in table.experts])
    known = np.isfinite(table.cost_usd)
    dollars = np.where(known, table.cost_usd, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    for amounts in (sizes, dollars):
        if np.isfinite(amounts).all() and (amounts > 0).all():
            return np.asarray(amounts / amounts.mean(), dtype=np.float64)
    return np.ones(len(table.experts))


def worth_keeping(ways: Sequence[Way], costs: Float64Array) -> list[Way]:
    """The ways that are best over all prompts at some price of a call or of what experts cost."""
    if not ways:  # two experts have no arbiter
        return []
    score = np.array([way.played.score.mean() for way in ways])
    asked = np.stack([way.played.asked.mean(axis=0) for way in ways])
    kept: dict[int, None] = {}
    for spent in (asked.sum(axis=1), asked @ costs):
        for price in (0.0, *PRICES, 0.5, 1.0, 2.0):
            kept[int(np.argmax(score - price * spent))] = None
    return [ways[i] for i in sorted(kept)]


def measured(
    ways: Sequence[Way],
    scores: Float64Array,
    reference: int,
    rows: IntArray,
    quality: FloatArray,
    is_measured: BoolArray,
) -> Variants:
    """The ways with what they won over the best single expert in every row of the map.

    A lead in a category counts as far as its standard error does not explain it, as that of an expert does
    (router.quality.cautious_quality), and not at all where the way, the best of many, is not SURE to lead overall.

    Args:
        scores: (n, m) of the experts; `reference` is the best single one, `quality` (k + 1,) its own.
        rows: (n,) the category that each prompt is decided to be of; `general` has what all have in common.
        is_measured: (k + 1,) rows with enough prompts whose answers were compared; no way serves the others.
    """
    m, single = scores.shape[1], scores[:, reference]
    k, v, longest = len(quality) - 1, len(ways), max((len(way.experts) for way in ways), default=0)
    experts = np.full((v, longest), NOBODY, dtype=np.int64)
    rules = np.zeros((v, longest, SIGNALS + TELLS), dtype=np.float32)
    for i, way in enumerate(ways):
        experts[i, : len(way.experts)] = way.experts
        rules[i, : len(way.rules), : way.rules.shape[1]] = way.rules
    gains = np.array([way.played.score - single for way in ways]).reshape(v, len(single)).T
    gain, stderr = shrink(*cell_sums(gains, rows, k))
    leads = gains.mean(axis=0) > SURE * gains.std(axis=0) / np.sqrt(len(gains))
    lead = np.where(gain > 0, np.where(leads, np.maximum(gain - CAUTION * stderr, 0.0), 0.0), gain)
    return Variants(
        experts=experts,
        by_weight=np.array([way.by_weight for way in ways], dtype=np.int64),
        rules=rules,
        quality=np.where(is_measured[:, None], quality[:, None] + lead, NEVER).astype(np.float32),
        asks=np.array([mean_asked(way.played.asked, rows, k) for way in ways], dtype=np.float32)
        .reshape(v, k + 1, m)
        .transpose(1, 0, 2),
    )


def mean_asked(asked: np.ndarray, rows: IntArray, k: int) -> FloatArray:
    """(k + 1, m) how often each expert is asked per query of a row."""
    sums, _, counts = cell_sums(asked.astype(np.float64), rows, k)
    return np.asarray((sums + PRIOR_ASKS * asked.mean(axis=0)) / (counts + PRIOR_ASKS), dtype=np.float32)
