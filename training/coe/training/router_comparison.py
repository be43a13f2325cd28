"""The live router against its candidate: on labels, on graded outcomes, on the log.

Shapes: n rows, m experts (the columns of the evidence, then experts that only the live router knows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coe.router.normalise import normalised_text
from coe.router.pipeline import Router
from coe.router.types import GENERAL, Float64Array, FloatArray, IntArray, RoutingDecision
from coe.training.evidence import Evidence, category_rows
from coe.training.expert_map import row_numbers
from coe.training.gate import Comparison
from coe.training.log_answers import AskedAnswers, LoggedChoices, batch_of, choices_on
from coe.training.log_table import FOLDS
from coe.training.off_policy import (
    effective_sample_size,
    paired_means,
)
from coe.training.types import LabelledQuery, OutcomeTable


@dataclass(frozen=True)
class CrossFitted:
    """The candidate as fitted without one part of the evidence, and that evidence."""

    router: Router
    evidence: Evidence


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


@dataclass(frozen=True)
class MapChange:
    """A category whose expert differs between the live router and the candidate."""

    category: str
    live: str
    candidate: str


def map_changes(live: Router, candidate: Router) -> tuple[MapChange, ...]:
    """Categories that the candidate sends elsewhere."""
    before, after = live.expert_of(), candidate.expert_of()
    return tuple(
        MapChange(category, before[category], after[category])
        for category in after
        if category in before and before[category] != after[category]
    )
