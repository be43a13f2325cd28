"""A candidate router from the log, and its comparison with the live one.

What is new against the first fit: graded rewards of logged answers join the outcomes in the quality matrix, and the
traffic's own mix of categories weighs the map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.pipeline import Router
from router.quality import QualityMatrix
from router.types import FloatArray, Query, QueryBatch, RoutingDecision
from training.datasets.decision_log import LogDataset, LoggedAnswer
from training.expert_map import measure_quality
from training.gate import Comparison
from training.off_policy import (
    bootstrap_metric,
    doubly_robust_terms,
    effective_sample_size,
    importance_weights,
)
from training.split import split_of
from training.types import LabelledQuery, OutcomeTable

MASS_PRIOR_DECISIONS = 20.0
"""Weight of the outcome table's mix of categories against the traffic's, in decisions (ours)."""


@dataclass(frozen=True)
class Evidence:
    """The candidate's quality matrix, and `reward_offset`: how much rewards lie above graded scores."""

    matrix: QualityMatrix
    reward_offset: float


def in_training(answer: LoggedAnswer) -> bool:
    """Whether a logged answer may be learned from; the rest judges the candidate. By text, so that a repeated question
    is never on both sides; by id where the log keeps no text."""
    return split_of(answer.text or answer.decision_id) != "test"


def gather_evidence(outcomes: OutcomeTable, log: LogDataset, categories: Sequence[str]) -> Evidence:
    """Outcomes and logged rewards as one quality matrix over `outcomes.experts`.

    People's marks and graders' scores differ in level, and only experts that were chosen have rewards. A common offset
    (mean over cells that have both, weighted by rewards) is taken off the rewards first: without it the expert that
    happens to serve would gain by being marked at all (ours).
    """
    learned = [a for a in log.used if in_training(a) and a.expert in outcomes.experts]
    base = measure_quality(outcomes, categories)
    rows = [*categories, "general"]
    offset = reward_offset(learned, base, rows, outcomes.experts)
    table = join_rewards(outcomes, learned, offset)
    counts = np.array([log.traffic.get(name, 0) for name in rows], dtype=np.float32)
    mass = (counts + MASS_PRIOR_DECISIONS * base.mass) / (counts.sum() + MASS_PRIOR_DECISIONS)
    matrix = measure_quality(table, categories, mass.astype(np.float32))
    return Evidence(replace(matrix, prompt_tokens=base.prompt_tokens, latency_ms=base.latency_ms), offset)


def reward_offset(
    answers: Sequence[LoggedAnswer], base: QualityMatrix, rows: Sequence[str], experts: Sequence[str]
) -> float:
    """Mean of reward minus measured quality over answers whose cell was graded; 0 where none was."""
    differences = [
        answer.reward - float(base.quality[rows.index(answer.category), experts.index(answer.expert)])
        for answer in answers
        if answer.category in rows and base.count[rows.index(answer.category), experts.index(answer.expert)] > 0
    ]
    return float(np.mean(differences)) if differences else 0.0


def join_rewards(outcomes: OutcomeTable, answers: Sequence[LoggedAnswer], offset: float) -> OutcomeTable:
    """The table with one more row per logged answer, scored only for the expert that answered."""
    n, m = len(answers), len(outcomes.experts)
    scores = np.full((n, m), np.nan, dtype=np.float32)
    for row, answer in enumerate(answers):
        scores[row, outcomes.experts.index(answer.expert)] = np.clip(answer.reward - offset, 0.0, 1.0)
    unknown = np.full((n, m), np.nan, dtype=np.float32)
    return replace(
        outcomes,
        prompt_ids=(*outcomes.prompt_ids, *(a.decision_id for a in answers)),
        texts=(*outcomes.texts, *(a.text or "" for a in answers)),
        categories=(*outcomes.categories, *(a.category for a in answers)),
        splits=(*outcomes.splits, *("train" for _ in answers)),
        scores=np.concatenate([outcomes.scores, scores]),
        cost_usd=np.concatenate([outcomes.cost_usd, unknown]),
        output_tokens=np.concatenate([outcomes.output_tokens, unknown]),
        latency_ms=np.concatenate([outcomes.latency_ms, unknown]),
    )


@dataclass(frozen=True)
class Contest:
    """The live router and its candidate over the same experts, with what draws random numbers."""

    live: Router
    candidate: Router
    rng: np.random.Generator

    def paired(
        self, name: str, live: NDArray[np.float64], candidate: NDArray[np.float64], effective_n: float | None = None
    ) -> Comparison:
        """Means of two value arrays (n,) on the same rows, and their paired difference."""
        n = len(live)

        def mean_of(values: NDArray[np.float64]) -> Callable[[NDArray[np.int64]], float]:
            return lambda rows: float(values[rows].mean()) if len(rows) else 0.0

        of_live, of_candidate, of_difference = (
            bootstrap_metric(n, mean_of(values), self.rng) for values in (live, candidate, candidate - live)
        )
        return Comparison(name, of_live, of_candidate, of_difference, float(n) if effective_n is None else effective_n)

    def on_labels(self, queries: Sequence[LabelledQuery], embeddings: FloatArray) -> Comparison:
        """Category accuracy after the fallback: `general` is right only for queries labelled so."""
        labels = np.array([query.category for query in queries])
        live, candidate = (
            (np.array([d.category for d in decide(router, [q.text for q in queries], embeddings)]) == labels)
            for router in (self.live, self.candidate)
        )
        return self.paired("category accuracy", live.astype(np.float64), candidate.astype(np.float64))

    def on_outcomes(self, table: OutcomeTable, embeddings: FloatArray) -> Comparison:
        """Score of the chosen expert on the graded prompts, which both maps were measured on; a missing score counts as
        the row's mean. A log can only take a map away from what is best here, so this can veto and rarely promotes."""
        filled = np.where(np.isfinite(table.scores), table.scores, np.nanmean(table.scores, axis=1, keepdims=True))
        values = []
        for router in (self.live, self.candidate):
            chosen = [table.experts.index(d.expert) for d in decide(router, table.texts, embeddings)]
            values.append(filled[np.arange(len(chosen)), chosen].astype(np.float64))
        return self.paired("score on graded outcomes", values[0], values[1])

    def on_log(self, answers: Sequence[LoggedAnswer], embeddings: FloatArray, evidence: Evidence) -> Comparison:
        """Doubly robust reward of both routers on logged answers they did not learn from."""
        texts = [answer.text or "" for answer in answers]
        reward = np.array([answer.reward for answer in answers], dtype=np.float64)
        propensity = np.array([answer.propensity for answer in answers], dtype=np.float64)
        terms, sizes = [], []
        for router in (self.live, self.candidate):
            model = predicted_rewards(router, answers, evidence)
            decisions = decide(router, texts, embeddings)
            policy = np.array(
                [[probs.get(name, 0.0) for name in router.experts] for probs in map(choice_probs, decisions)]
            )
            logged = np.array([router.experts.index(answer.expert) for answer in answers])
            at = np.arange(len(answers))
            weights = importance_weights(policy[at, logged], propensity)
            terms.append(doubly_robust_terms(weights, reward, model[at, logged], (policy * model).sum(axis=1)))
            sizes.append(effective_sample_size(weights))
        return self.paired("reward on the held-out log", terms[0], terms[1], effective_n=sizes[1])


def decide(router: Router, texts: Sequence[str], embeddings: FloatArray) -> list[RoutingDecision]:
    """Decisions without randomness in them: exploration is in their probabilities."""
    queries = tuple(Query(id=str(i), text=text) for i, text in enumerate(texts))
    return list(router.decide_batch(QueryBatch(queries, embeddings), rng=np.random.default_rng(0)))


def choice_probs(decision: RoutingDecision) -> Mapping[str, float]:
    return dict(zip(decision.eligible, decision.eligible_probs, strict=True))


def predicted_rewards(router: Router, answers: Sequence[LoggedAnswer], evidence: Evidence) -> NDArray[np.float64]:
    """q(x, e) of the doubly robust estimate (n, m): measured quality of the category, on the scale of rewards."""
    rows = [router.categories.index(a.category) for a in answers]
    return np.clip(evidence.matrix.quality[rows].astype(np.float64) + evidence.reward_offset, 0.0, 1.0)
