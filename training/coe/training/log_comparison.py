"""The live router against its candidate on logged answers, each judged by a model that did not learn from it.

Shapes: n answers, m experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coe.router.types import BoolArray, Float64Array, IntArray, Metric
from coe.training.change_points import ChangePoint, is_outdated
from coe.training.feedback_bias import counted_share, min_keys
from coe.training.fit_inputs import RetrainInputs
from coe.training.gate import DEFAULT_TERMS, MAX_UNSUPPORTED, Comparison, Terms
from coe.training.judged_pairs import JudgedGains, JudgedPairs, together
from coe.training.log_answers import AskedAnswers, LoggedChoices, chance_matrix, choices_on, sample_rows
from coe.training.log_table import LogTable
from coe.training.off_policy import (
    FULL_CHANCE,
    MAX_WEIGHT,
    OF_CANDIDATES,
    OF_NEW_EXPERTS,
    Betting,
    doubly_robust_terms,
    effective_sample_size,
    importance_weights,
    log_e_gain,
    paired_means,
    widened,
)
from coe.training.router_comparison import RouterComparison

LOG_NAME = "reward on the log"

MAX_JUDGED = 20_000
"""Logged answers that a candidate is judged on. More do not change an interval enough to be waited for (ours)."""


@dataclass(frozen=True)
class LogComparison:
    """The comparison that the gate sees, and mean costs in USD (live, candidate)."""

    doubly_robust: Comparison
    costs_usd: tuple[float, float]


@dataclass(frozen=True)
class NewExperts:
    """Experts that the router did not know when the log began, and what the live map would gain by them."""

    experts: tuple[str, ...]
    gain: Comparison


@dataclass(frozen=True)
class LogJudgement:
    """Comparisons on `n` logged answers that say what both routers are worth now. `new_experts`: those that the
    candidate gives something that they had a chance of; `is_alike`: with all that it learned from, the candidate wants
    the same experts for all of them as the live router."""

    comparison: LogComparison
    new_experts: NewExperts | None
    n: int
    is_alike: bool


def judge_on_log(inputs: RetrainInputs, comparison: RouterComparison) -> LogJudgement | None:
    """None where no answer can judge."""
    log, terms = inputs.log, inputs.request.terms
    rows, share = judged_rows(log, inputs.changes, comparison)
    kept = sample_rows(log, rows, MAX_JUDGED)
    asked = inputs.answers(log, kept, MAX_JUDGED)
    if not len(asked):
        return None
    own = share[kept[np.isin(log.ids[kept], asked.log.ids)]]  # both in the order of rows; some were erased since
    choices = comparison.choices(asked)
    whole = choices_on(comparison.candidate, asked, comparison.experts)
    pairs, judged = None, judging_pairs(log, inputs.changes, comparison)
    if judged is not None:
        compared = inputs.answers(judged, np.arange(len(judged)), MAX_JUDGED)
        pairs = JudgedPairs(compared.log, comparison.choices(compared))
    new_experts = compare_new_experts(comparison, asked, own, choices, terms, pairs)
    is_alike = bool((whole.chosen == choices[0].chosen).all())
    return LogJudgement(compare_on_log(comparison, asked, own, choices, terms), new_experts, len(asked), is_alike)


def judged_rows(
    log: LogTable, changes: tuple[ChangePoint, ...], comparison: RouterComparison
) -> tuple[IntArray, Float64Array]:
    """Rows that judge, and for every row of the log how many queries of the traffic it represents.

    A category whose quality changed keeps only what came after, so each of its few answers represents more queries.
    """
    common = tuple(name for name in comparison.live.experts if name in comparison.candidate.experts)
    judging = log.expert_in(common) >= 0
    kept = judging & ~is_outdated(log, changes)
    share = log.weight.copy()
    for number in np.unique(log.category[kept]):
        inside = log.category == number
        share[inside] *= log.weight[judging & inside].sum() / log.weight[kept & inside].sum()
    return np.flatnonzero(kept), share


def judging_pairs(log: LogTable, changes: tuple[ChangePoint, ...], comparison: RouterComparison) -> LogTable | None:
    """Pairs that a judge compared, of experts as they are today; None without a judge."""
    if log.judged is None:
        return None
    says = (log.judged.expert_in(comparison.experts) >= 0) & ~is_outdated(log.judged, changes)
    return log.judged.rows(together(says))


@dataclass(frozen=True)
class LoggedPair:
    """The choices of the live router and its candidate for logged answers, which the experts `logged` (n,) gave.

    `model` (n, m) is the reward that is predicted of each expert, and `chance` (n, m) the probability with which the
    log's router chose it.
    """

    log: LogTable
    choices: Sequence[LoggedChoices]
    logged: IntArray
    model: Float64Array
    chance: Float64Array

    @cached_property
    def differs(self) -> BoolArray:
        """(n,) queries for which they want different experts."""
        return np.asarray(self.choices[0].chosen != self.choices[1].chosen)

    @cached_property
    def decisive(self) -> BoolArray:
        """(n,) the same; all where they want the same for every query."""
        return self.differs if self.differs.any() else np.ones(len(self.log), dtype=bool)

    @cached_property
    def tried(self) -> list[Float64Array]:
        """(n,) chance that each router's expert had of answering."""
        return [self.chance[np.arange(len(self.log)), one.chosen] for one in self.choices]

    @cached_property
    def planned(self) -> list[Float64Array]:
        """(n,) predicted reward of each router's expert."""
        return [one.planned(self.model) for one in self.choices]

    @cached_property
    def weights(self) -> list[Float64Array]:
        """(n,) importance of each answer for each router, cut."""
        return [importance_weights(one.match(self.logged), self.log.propensity) for one in self.choices]

    @property
    def predicted(self) -> Float64Array:
        """(n,) predicted reward of who answered."""
        return self.model[np.arange(len(self.log)), self.logged]

    @property
    def category(self) -> IntArray:
        return self.log.category.astype(np.int64)


def compare_on_log(
    comparison: RouterComparison,
    asked: AskedAnswers,
    share: Float64Array,
    choices: Sequence[LoggedChoices] | None = None,
    terms: Terms = DEFAULT_TERMS,
    betting: Betting = OF_CANDIDATES,
    judged: JudgedGains | None = None,
) -> LogComparison:
    """Reward of both routers on logged answers, each judged by the cross-fitted model that did not learn from it.

    In no category does a key judge more than its share (training.feedback_bias); categories in which too few keys gave
    feedback are not judged, and changes there count as unsupported.

    Args:
        share: (n,) how many queries of the traffic each answer represents, relative to the others.
        choices: of the live router and the candidate on these answers, when the caller has them.
        terms: what a rise of the mean cost takes.
        betting: terms of the evidence of a gain.
    """
    log, experts = asked.log, comparison.experts
    chosen, model = choices or comparison.choices(asked), comparison.predicted_rewards(asked)
    pair = LoggedPair(log, chosen, log.expert_in(experts), model, chance_matrix(asked, experts))
    nothing = np.zeros(len(log.categories))
    counted = counted_share(pair.category, log.key, share, nothing, log.max_key_share)
    unsupported, uncounted = unjudged(pair, share, counted)
    share = share * counted if counted.any() else share
    rated = log.rows(pair.decisive & (pair.weights[1] > 0))
    lacking = too_few_keys(rated, uncounted) if (log.key >= 0).any() else ""
    costs = comparison.mean_costs(asked, pair.choices, share)
    least = terms.least_gain(*costs)
    live, candidate, difference, effective = estimates(pair, share, comparison.rng)
    if lacking:  # so few draws that an interval would be a guess
        difference = difference.model_copy(update={"interval": None})
    compared = Comparison(LOG_NAME, live, candidate, difference, effective, unsupported, lacking)
    log_e = evidence_of_gain(pair, counted, least, betting, judged)
    return LogComparison(replace(compared, log_e=log_e, least_gain=least, level=betting.level), costs)


def unjudged(pair: LoggedPair, share: Float64Array, counted: Float64Array) -> tuple[float, float]:
    """Shares of the queries that would change hands: of categories in which the expert of either router had less than
    one chance in MAX_WEIGHT on average, and of those in which no answer is `counted` (n,)."""
    seldom = category_means(pair.category, np.minimum(*pair.tried), pair.decisive) < 1.0 / MAX_WEIGHT
    own = share[pair.decisive]
    whole = max(own.sum(), 1e-12)
    return float(own[seldom[pair.decisive]].sum() / whole), float(own[counted[pair.decisive] == 0].sum() / whole)


def estimates(pair: LoggedPair, share: Float64Array, rng: np.random.Generator) -> tuple[Metric, Metric, Metric, float]:
    """Mean rewards of both routers and their difference, and the effective sample: it is counted where they want
    different experts, because elsewhere the log may say much, and nothing of the difference.

    Where the expert of either had less than one chance in MAX_WEIGHT, its weight is cut and the model judges:
    intervals are stretched by all that it may be wrong by there, since rewards lie in [0, 1] (partial identification,
    Manski 1990). They resample clusters: whole keys, and whole questions of keys without a limit.
    """
    log = pair.log
    values = [
        doubly_robust_terms(weights, log.reward, pair.predicted, planned)
        for weights, planned in zip(pair.weights, pair.planned, strict=True)
    ]
    said = [pair.weights[0] * share, pair.weights[1] * share * pair.decisive]
    _, member = np.unique(log.cluster, return_inverse=True)
    freedom = [effective_sample_size(np.bincount(member, weights=own).astype(np.float64)) for own in said]
    doubts = doubts_of(pair, share / share.sum())
    metrics = paired_means(values[0], values[1], share, log.cluster, rng)
    live, candidate, difference = (
        widened(metric, n, *own) for metric, n, own in zip(metrics, (*freedom, freedom[1]), doubts, strict=True)
    )
    return live, candidate, difference, effective_sample_size(said[1])


def doubts_of(pair: LoggedPair, share: Float64Array) -> list[Float64Array]:
    """Amounts (2,) by which the means of both routers, and their difference, may be too high and too low: where the
    wanted expert was all but never tried, the truth lies anywhere in [0, 1]. `share` (n,) sums to 1."""

    def doubt(number: int, part: Float64Array) -> Float64Array:
        own = part * (pair.tried[number] < 1.0 / MAX_WEIGHT)
        return np.array([own @ pair.planned[number], own @ (1.0 - pair.planned[number])])

    changed = share * pair.differs
    return [doubt(0, share), doubt(1, share), doubt(1, changed) + doubt(0, changed)[::-1]]


def evidence_of_gain(
    pair: LoggedPair, counted: Float64Array, least: float, betting: Betting, judged: JudgedGains | None
) -> float:
    """log E against "the candidate gains at most `least`", by the answers and by what a judge said."""
    log = pair.log
    part = log.weight * counted / max(float((log.weight * counted).mean()), 1e-12)
    gains, lowest = doubly_robust_gains(pair)
    told, voices = (part * gains, log.key) if judged is None else judged.among(part * gains, log)
    return log_e_gain(told, voices, least, max(-float((part * lowest).min()), 1.0), betting)


def doubly_robust_gains(pair: LoggedPair) -> tuple[Float64Array, Float64Array]:
    """(n,) gains of the candidate on a log, and the least that any reward could have made of each.

    Within a category an answer counts by the chance that both routers' experts had of giving it, in full from
    `FULL_CHANCE` on; the category as a whole counts for all of its answers.
    """
    log = pair.log
    counts = np.minimum(np.minimum(*pair.tried) / FULL_CHANCE, 1.0)
    least = 1.0 / (MAX_WEIGHT * FULL_CHANCE)  # below that a category is not supported anyway
    counts /= np.maximum(category_means(log.category, counts, pair.differs), least)

    def by(reward: Float64Array) -> Float64Array:
        live, candidate = (
            doubly_robust_terms(one.match(pair.logged) / log.propensity, reward, pair.predicted, planned)
            for one, planned in zip(pair.choices, pair.planned, strict=True)
        )
        return np.where(pair.differs, counts * (candidate - live), 0.0)

    return by(log.reward), np.minimum(by(np.zeros(len(log))), by(np.ones(len(log))))


def category_means(category: NDArray[np.integer], values: Float64Array, counts: BoolArray) -> Float64Array:
    """(n,) mean of the values (n,) that count, in the category of each."""
    means = np.bincount(category, weights=values * counts) / np.maximum(np.bincount(category, weights=counts), 1e-12)
    return np.asarray(means[category], dtype=np.float64)


def too_few_keys(rated: LogTable, uncounted: float) -> str:
    """Reason why the keys that gave this feedback may not decide about the queries that would change hands; empty if
    they may.

    `uncounted` is the share of those queries in categories that too few keys rated.
    """
    n, needed = len(np.unique(rated.key[rated.key >= 0])), min_keys(rated.max_key_share)
    if not (rated.key < 0).any() and n < needed:
        return f"{n} keys rated queries that would change hands, and {needed} are needed"
    if uncounted > MAX_UNSUPPORTED:
        return f"{uncounted:.0%} of the queries that would change hands are of categories that too few keys rated"
    return ""


def compare_new_experts(
    comparison: RouterComparison,
    asked: AskedAnswers,
    share: Float64Array,
    choices: Sequence[LoggedChoices],
    terms: Terms = DEFAULT_TERMS,
    pairs: JudgedPairs | None = None,
) -> NewExperts | None:
    """The live router against itself with what the candidate gives to new experts, and nothing else, on the answers
    since one of them was known; None where it gives them nothing, or only what they never had a chance of, as without
    exploration, of which their answers say nothing.

    Whatever else the candidate changes would drown what their answers say, and bets on the answers from before they
    came would spend a plan on nothing. An expert that was only asleep, kept out by a policy or pinned away from the
    first query is none of them.
    """
    live, candidate = choices
    known = np.array([[name in own for name in comparison.experts] for own in asked.chances])
    came = np.where(known.any(axis=0), known.argmax(axis=0), 0)
    given = (came[candidate.chosen] > 0) & (candidate.chosen != live.chosen)
    could = chance_matrix(asked, comparison.experts)[np.arange(len(asked)), candidate.chosen] > 0
    if not (given & could).any():
        return None
    numbers = np.unique(candidate.chosen[given])
    own = np.arange(came[numbers].min(), len(asked))
    chosen = np.where(given, candidate.chosen, live.chosen)[own]
    serves = np.where(given, candidate.serves, live.serves)[own]
    pair = [LoggedChoices(live.chosen[own], live.serves[own]), LoggedChoices(chosen, serves)]
    judged = None if pairs is None else pairs.gains(comparison.experts, numbers)
    found = compare_on_log(comparison, asked.rows(own), share[own], pair, terms, OF_NEW_EXPERTS, judged)
    return NewExperts(tuple(comparison.experts[number] for number in numbers.tolist()), found.doubly_robust)
