"""The live router against its candidate: on labels, on graded outcomes, on the log.

Shapes: n rows, m experts (the columns of the evidence, then experts that only the live router knows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coe.base.text_identity import normalised_text
from coe.router.pipeline import Router
from coe.router.types import GENERAL, BoolArray, Float64Array, FloatArray, IntArray, RoutingDecision
from coe.training.evidence import Evidence, category_rows
from coe.training.expert_map import row_numbers
from coe.training.feedback_bias import counted_share, min_keys
from coe.training.gate import DEFAULT_TERMS, MAX_UNSUPPORTED, Comparison, Terms
from coe.training.judged_pairs import JudgedGains, JudgedPairs
from coe.training.log_answers import AskedAnswers, LoggedChoices, batch_of, chance_matrix, choices_on
from coe.training.log_table import FOLDS, LogTable
from coe.training.off_policy import (
    FULL_CHANCE,
    MAX_WEIGHT,
    OF_CANDIDATES,
    OF_NEWCOMERS,
    Bets,
    doubly_robust_terms,
    effective_sample_size,
    importance_weights,
    log_e_gain,
    paired_means,
    widened,
)
from coe.training.types import LabelledQuery, OutcomeTable

LOG_NAME = "reward on the log"


@dataclass(frozen=True)
class CrossFitted:
    """The candidate as fitted without one part of the evidence, and that evidence."""

    router: Router
    evidence: Evidence


@dataclass(frozen=True)
class LogComparison:
    """The comparison that the gate sees, and mean costs in USD (live, candidate)."""

    doubly_robust: Comparison
    costs_usd: tuple[float, float]


@dataclass(frozen=True)
class Newcomers:
    """Experts that the router did not know when the log began, and what the live map would gain by them."""

    experts: tuple[str, ...]
    gain: Comparison


@dataclass(frozen=True)
class RouterComparison:
    """Two routers over the same queries. `costs_usd` (k+1, m) are those of a query by the candidate's categories;
    `cross_fitted` the candidate without each fold of what it learned from (`candidate.py`), none where that is not
    what is compared on; `rows` names the rows of the evidence where they are not the candidate's categories."""

    live: Router
    candidate: Router
    evidence: Evidence
    costs_usd: FloatArray
    rng: np.random.Generator
    cross_fitted: tuple[CrossFitted, ...] = ()
    rows: tuple[str, ...] = ()

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.evidence.outcomes.experts, *self.live.experts)))

    def on_labels(self, queries: Sequence[LabelledQuery], embeddings: FloatArray) -> Comparison:
        """Category accuracy after the fallback: `general` is right only for queries labelled so. Where the candidate
        follows the traffic's mix, queries count by how often the like of them is asked."""
        labels = np.array([query.category for query in queries])
        live, candidate = (
            (np.array([d.category for d in decide(router, [q.text for q in queries], embeddings)]) == labels)
            for router in (self.live, self.candidate)
        )
        mix = self.candidate.mix
        names = {} if mix is None else dict(zip(self.candidate.categories, mix.tolist(), strict=False))
        weight = np.array([names.get(query.category, 1.0) for query in queries])
        return self.paired("category accuracy", live.astype(np.float64), candidate.astype(np.float64), weight)

    def on_outcomes(self, table: OutcomeTable, embeddings: FloatArray, *, is_held_out: bool) -> Comparison:
        """Score of the chosen expert on graded prompts; a missing score counts as the quality measured of its cell.

        Where the candidate learned from these grades they may only veto: `crossed` decides in their place.
        """
        cells = self.evidence.matrix.quality[row_numbers(table, self.candidate.categories[:-1])]
        filled = np.where(np.isfinite(table.scores), table.scores, cells)
        values = []
        for router in (self.live, self.candidate):
            chosen = [table.experts.index(name) for name in wanted(router, table.texts, embeddings)]
            values.append(filled[np.arange(len(chosen)), chosen].astype(np.float64))
        name = "score on held-out outcomes" if is_held_out else "score on graded outcomes"
        found = self.paired(name, values[0], values[1])
        return found if is_held_out else replace(found, lacking="the candidate was fitted on these grades")

    def crossed(self, table: OutcomeTable, embeddings: FloatArray) -> Comparison | None:
        """Score on graded prompts of the live router, and on each fold of them of the candidate's model that was fitted
        without it; None where nothing is left.

        The live router may know the grades, which favours it. Prompts on which either choice was not graded are left
        out: what their cell says was learned from its other prompts by the candidate, too.
        """
        folds = folds_of(table)
        chosen = wanted(self.live, table.texts, embeddings)
        theirs = list(chosen)
        for fold, fitted in enumerate(self.cross_fitted):
            rows = np.flatnonzero(folds == fold)
            own = wanted(fitted.router, [table.texts[row] for row in rows], embeddings[rows])
            for row, name in zip(rows, own, strict=True):
                theirs[row] = name
        scores = [scores_of(table, names) for names in (chosen, theirs)]
        known = np.isfinite(scores[0]) & np.isfinite(scores[1])
        return self.paired("graded outcomes, cross-fitted", *(own[known] for own in scores)) if known.any() else None

    def paired(
        self, name: str, live: Float64Array, candidate: Float64Array, weight: Float64Array | None = None
    ) -> Comparison:
        """Weighted means of two value arrays (n,) on the same rows, and their paired difference."""
        weight = np.ones(len(live)) if weight is None else weight
        means = paired_means(live, candidate, weight, np.arange(len(live)), self.rng)
        return Comparison(name, *means, effective_sample_size(weight))

    def on_log(
        self,
        asked: AskedAnswers,
        share: Float64Array,
        choices: Sequence[LoggedChoices] | None = None,
        terms: Terms = DEFAULT_TERMS,
        bets: Bets = OF_CANDIDATES,
        judged: JudgedGains | None = None,
    ) -> LogComparison:
        """Reward of both routers on logged answers, each judged by the cross-fitted model that did not learn from it.

        The effective sample is counted where the routers want different experts: elsewhere the log may say much, and
        nothing of the difference. Where the expert of either had less than one chance in MAX_WEIGHT, its weight is cut
        and the model judges: intervals are stretched by all that it may be wrong by there, since rewards lie in [0, 1]
        (partial identification, Manski 1990). `unsupported` is the share, of those queries, of categories of which
        that is so on average.

        In no category does a key judge more than its share (training.feedback_bias); categories in which too few keys
        gave feedback are not judged, and changes there count as unsupported. Intervals resample clusters: whole keys,
        and whole questions of keys without a limit.

        Args:
            share: (n,) how many queries of the traffic each answer represents, relative to the others.
            choices: of the live router and the candidate on these answers, when the caller has them.
            terms: what a rise of the mean cost takes.
            bets: that find the evidence of a gain.
        """
        experts = self.experts
        logged, at = asked.log.expert_in(experts), np.arange(len(asked))
        model = self.predicted_rewards(asked)
        choices = choices or self.choices(asked)
        weights = [importance_weights(one.match(logged), asked.log.propensity) for one in choices]
        values = [
            doubly_robust_terms(w, asked.log.reward, model[at, logged], one.planned(model))
            for w, one in zip(weights, choices, strict=True)
        ]
        differs = choices[0].chosen != choices[1].chosen
        decisive = differs if differs.any() else np.ones(len(asked), dtype=bool)
        nothing = np.zeros(len(asked.log.categories))
        category = asked.log.category.astype(np.int64)
        counted = counted_share(category, asked.log.key, share, nothing, asked.log.max_key_share)
        chance = chance_matrix(asked, experts)
        tried = [chance[at, one.chosen] for one in choices]
        untried = [own < 1.0 / MAX_WEIGHT for own in tried]
        seldom = category_means(category, np.minimum(*tried), decisive) < 1.0 / MAX_WEIGHT
        unsupported, uncounted = (share_of(share[decisive], kind[decisive]) for kind in (seldom, counted == 0))
        share = share * counted if counted.any() else share
        said = [weights[0] * share, weights[1] * share * decisive]
        is_limited = bool((asked.log.key >= 0).any())
        lacking = too_few_keys(asked.log.rows(decisive & (weights[1] > 0)), uncounted) if is_limited else ""
        _, member = np.unique(asked.log.cluster, return_inverse=True)
        freedom = [effective_sample_size(np.bincount(member, weights=own).astype(np.float64)) for own in said]
        effective = effective_sample_size(said[1])

        costs = self.mean_costs(asked, choices, share)
        part = asked.log.weight * counted / max(float((asked.log.weight * counted).mean()), 1e-12)
        gains, lowest = doubly_robust_gains(asked.log, choices, logged, model, np.minimum(*tried))
        least = terms.least_gain(*costs)
        told, voices = (part * gains, asked.log.key) if judged is None else judged.among(part * gains, asked.log)
        log_e = log_e_gain(told, voices, least, max(-float((part * lowest).min()), 1.0), bets)

        metrics = paired_means(values[0], values[1], share, asked.log.cluster, self.rng)
        doubts = doubts_of([one.planned(model) for one in choices], untried, differs, share / share.sum())
        live, candidate, difference = (
            widened(metric, n, *own) for metric, n, own in zip(metrics, (*freedom, freedom[1]), doubts, strict=True)
        )
        if lacking:  # so few draws that an interval would be a guess
            difference = difference.model_copy(update={"interval": None})
        compared = Comparison(LOG_NAME, live, candidate, difference, effective, unsupported, lacking)
        return LogComparison(replace(compared, log_e=log_e, least_gain=least, level=bets.level), costs)

    def on_newcomers(
        self,
        asked: AskedAnswers,
        share: Float64Array,
        choices: Sequence[LoggedChoices],
        terms: Terms = DEFAULT_TERMS,
        pairs: JudgedPairs | None = None,
    ) -> Newcomers | None:
        """The live router against itself with what the candidate gives to newcomers, and nothing else, on the answers
        since one of them was known; None where it gives them nothing, or only what they never had a chance of, as
        without exploration, of which their answers say nothing.

        Whatever else the candidate changes would drown what their answers say, and bets on the answers from before
        they came would spend a plan on nothing. An expert that was only asleep, kept out by a policy or pinned away
        from the first query is none of them.
        """
        live, candidate = choices
        known = np.array([[name in own for name in self.experts] for own in asked.chances])
        came = np.where(known.any(axis=0), known.argmax(axis=0), 0)
        given = (came[candidate.chosen] > 0) & (candidate.chosen != live.chosen)
        could = chance_matrix(asked, self.experts)[np.arange(len(asked)), candidate.chosen] > 0
        if not (given & could).any():
            return None
        numbers = np.unique(candidate.chosen[given])
        own = np.arange(came[numbers].min(), len(asked))
        chosen = np.where(given, candidate.chosen, live.chosen)[own]
        serves = np.where(given, candidate.serves, live.serves)[own]
        pair = [LoggedChoices(live.chosen[own], live.serves[own]), LoggedChoices(chosen, serves)]
        judged = None if pairs is None else pairs.gains(self.experts, numbers)
        found = self.on_log(asked.rows(own), share[own], pair, terms, OF_NEWCOMERS, judged)
        return Newcomers(tuple(self.experts[number] for number in numbers.tolist()), found.doubly_robust)

    def choices(self, asked: AskedAnswers) -> list[LoggedChoices]:
        """Choices of the live router, and of the model without each answer's part; of the candidate where there are
        none."""
        found = choices_on(self.candidate, asked, self.experts)
        for fold, fitted in enumerate(self.cross_fitted):
            rows = np.flatnonzero(asked.log.fold == fold)
            own = choices_on(fitted.router, asked.rows(rows), self.experts)
            found.chosen[rows], found.serves[rows] = own.chosen, own.serves
        return [choices_on(self.live, asked, self.experts), found]

    def mean_costs(
        self, asked: AskedAnswers, choices: Sequence[LoggedChoices], share: Float64Array
    ) -> tuple[float, float]:
        """Mean cost in USD of what each router wants; an expert that was never measured costs what the others do."""
        priced = self.over_all_experts(self.costs_usd[category_rows(asked.log, self.rows or self.candidate.categories)])
        at = np.arange(len(asked))
        live, candidate = (float(np.average(priced[at, one.chosen], weights=share)) for one in choices)
        return live, candidate

    def map_costs(self) -> tuple[float, float]:
        """The same of each router's map, where no logged answer judges: both by the newest lengths and mix."""
        priced, costs = self.over_all_experts(self.costs_usd), []
        for own in (self.live.expert_of(), self.candidate.expert_of()):
            chosen = [self.experts.index(own.get(name, own[GENERAL])) for name in self.candidate.categories]
            costs.append(float(np.average(priced[np.arange(len(chosen)), chosen], weights=self.evidence.matrix.mass)))
        return costs[0], costs[1]

    def predicted_rewards(self, asked: AskedAnswers) -> Float64Array:
        """q(x, e) of the doubly robust estimate (n, m): measured quality of the category, on the scale of rewards."""
        category, fold = category_rows(asked.log, self.rows or self.candidate.categories), asked.log.fold
        found = self.evidence.matrix.quality[category] + self.evidence.reward_offset
        for number, fitted in enumerate(self.cross_fitted):
            own = fold == number
            found[own] = fitted.evidence.matrix.quality[category[own]] + fitted.evidence.reward_offset
        return np.clip(self.over_all_experts(found), 0.0, 1.0)

    def over_all_experts(self, values: FloatArray) -> Float64Array:
        """Values (n, columns of the evidence) as (n, m): the row's mean for experts that only the live router knows."""
        others = np.repeat(values.mean(axis=1, keepdims=True), len(self.experts) - values.shape[1], axis=1)
        return np.concatenate([values, others], axis=1).astype(np.float64)


def scores_of(table: OutcomeTable, experts: Sequence[str]) -> Float64Array:
    """(n,) score of one expert per prompt; NaN where it was not graded."""
    number = {name: column for column, name in enumerate(table.experts)}
    padded = np.column_stack([table.scores, np.full(len(table.scores), np.nan)])
    return padded[np.arange(len(experts)), [number.get(name, -1) for name in experts]].astype(np.float64)


def doubly_robust_gains(
    log: LogTable,
    choices: Sequence[LoggedChoices],
    logged: IntArray,
    model: Float64Array,
    chance: Float64Array,
) -> tuple[Float64Array, Float64Array]:
    """(n,) gains of the candidate on a log, and the least that any reward could have made of each.

    Within a category an answer counts by the chance that both routers' experts had of giving it, in full from
    `FULL_CHANCE` on; the category as a whole counts for all of its answers.

    Args:
        logged: (n,) the experts that answered, and `model` (n, m) what is predicted of all.
        chance: (n,) of the expert, of both routers', that was less likely to answer.
    """
    at, differs = np.arange(len(log)), choices[0].chosen != choices[1].chosen
    counts = np.minimum(chance / FULL_CHANCE, 1.0)
    least = 1.0 / (MAX_WEIGHT * FULL_CHANCE)  # below that a category is not supported anyway
    counts /= np.maximum(category_means(log.category, counts, differs), least)

    def by(reward: Float64Array) -> Float64Array:
        live, candidate = (
            doubly_robust_terms(one.match(logged) / log.propensity, reward, model[at, logged], one.planned(model))
            for one in choices
        )
        return np.where(differs, counts * (candidate - live), 0.0)

    return by(log.reward), np.minimum(by(np.zeros(len(log))), by(np.ones(len(log))))


def doubts_of(
    planned: Sequence[Float64Array], untried: Sequence[BoolArray], differs: BoolArray, share: Float64Array
) -> list[Float64Array]:
    """Amounts (2,) by which the means of both routers, and their difference, may be too high and too low: where the
    wanted expert was all but never tried, the truth lies anywhere in [0, 1].

    Args:
        planned: (n,) what is predicted of the wanted expert, by router; `untried` (n,) where only that is known.
        differs: (n,) queries for which they want different experts; `share` (n,) of the traffic, sums to 1.
    """

    def doubt(number: int, part: Float64Array) -> Float64Array:
        own = part * untried[number]
        return np.array([own @ planned[number], own @ (1.0 - planned[number])])

    changed = share * differs
    return [doubt(0, share), doubt(1, share), doubt(1, changed) + doubt(0, changed)[::-1]]


def share_of(share: Float64Array, belongs: BoolArray) -> float:
    """Part of the shares (n,) that belongs; 0 of nothing."""
    return float(share[belongs].sum() / max(share.sum(), 1e-12))


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


def decide(router: Router, texts: Sequence[str], embeddings: FloatArray) -> Sequence[RoutingDecision]:
    return router.decide_batch(batch_of(texts, embeddings), rng=np.random.default_rng(0))


def wanted(router: Router, texts: Sequence[str], embeddings: FloatArray) -> list[str]:
    """The expert that a router wants for each query, whomever exploration draws."""
    return [decision.ranking[0] for decision in decide(router, texts, embeddings)]


def folds_of(table: OutcomeTable) -> IntArray:
    """(n,) fold of each prompt, every category spread evenly; prompts of equal text share one. It follows from the
    prompts alone, whatever their order."""
    names = [normalised_text(text) or name for text, name in zip(table.texts, table.prompt_ids, strict=True)]
    category_of = dict(zip(names, table.categories, strict=True))
    ranked = sorted(category_of, key=lambda name: (category_of[name], hashlib.sha256(name.encode()).digest()))
    fold = {name: place % FOLDS for place, name in enumerate(ranked)}
    return np.array([fold[name] for name in names], dtype=np.int64)
