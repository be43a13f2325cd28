"""A candidate for the place of the live router: its fit, and the verdict on it.

It is fitted on everything that is not held out, and ten times more without a part each: what it learned from judges it
by a model that was fitted without that. Shapes: n graded prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import numpy as np

from coe.router.artifact import RouterArtifact
from coe.router.protocols import Encoder
from coe.router.types import GENERAL, Verdict
from coe.training.evidence import Evidence, category_rows
from coe.training.fit import Prepared, finish, prepare
from coe.training.fit_inputs import RetrainInputs, fit_request, judged_outcomes
from coe.training.gate import GateResult, judge, shown
from coe.training.graded_queries import LoggedQueries
from coe.training.log_answers import AskedAnswers, drawn_rows
from coe.training.log_comparison import NewExperts, judge_on_log
from coe.training.log_table import FOLDS
from coe.training.off_policy import MAX_WEIGHT
from coe.training.router_comparison import RouterComparison, folds_of, map_changes
from coe.training.stage_one import FitRequest, embed
from coe.training.types import split_of

MAX_LEARNED = 10_000
"""Logged answers that a learned scorer is fitted on; the map counts all of them. More do not change a scorer enough to
be waited for (ours)."""


def fit_candidate(
    inputs: RetrainInputs, evidence: Evidence, parent: str
) -> tuple[RouterArtifact, tuple[FittedModel, ...]]:
    """Fits the candidate, and its cross-fitted models, which judge what it is fitted on."""
    plain = fit_request(inputs.config, evidence.outcomes, inputs.queries)
    logged = None
    if plain.scorer.kind != "map" and len(inputs.log):
        thinned = drawn_rows(inputs.log, evidence.counted)  # answers above a key's share are left out at random
        asked = inputs.answers(inputs.log, thinned, MAX_LEARNED)
        logged = logged_queries(asked, evidence, plain.categories) if len(asked) else None
    wanted = replace(
        plain,
        evidence=evidence.matrix,
        outcomes=evidence.outcomes,
        logged=logged,
        asked=inputs.asked(),
        parents=(parent,),
        data_fingerprints=dict(plain.data_fingerprints) | {"log": inputs.log.fingerprint},
    )
    prepared = prepare(wanted, inputs.encoder, inputs.queries, inputs.rng, inputs.progress)
    made = finish(wanted, inputs.encoder, prepared, inputs.now)
    inputs.progress("fitting it again without each tenth of the graded prompts and of the logged answers")
    table, folds = evidence.outcomes, folds_of(evidence.outcomes)

    def part_of(fold: int) -> tuple[Evidence, set[str]]:
        left_out = {name for name, own in zip(table.prompt_ids, folds, strict=True) if own == fold}
        left_out |= {bytes(name).decode() for name in inputs.log.ids[inputs.log.fold == fold]}
        return inputs.evidence(inputs.log.without(fold), table.rows(folds != fold)), left_out

    return made, cross_fit(wanted, inputs.encoder, prepared, part_of, inputs.now)


class FittedModel(NamedTuple):
    """A router's artifact, and the evidence that it was fitted on."""

    artifact: RouterArtifact
    evidence: Evidence


def cross_fit(
    request: FitRequest,
    encoder: Encoder,
    prepared: Prepared,
    part_of: Callable[[int], tuple[Evidence, Collection[str]]],
    now: datetime,
) -> tuple[FittedModel, ...]:
    """One router per fold, fitted as `request` is but for the prompts and the logged answers of the fold.

    Args:
        part_of: the evidence without a fold, and the ids of its prompts and answers.
    """
    found = []
    for fold in range(FOLDS):
        evidence, left_out = part_of(fold)
        made = finish(replace(request, evidence=evidence.matrix), encoder, prepared.without(left_out), now)
        found.append(FittedModel(made, evidence))
    return tuple(found)


def logged_queries(asked: AskedAnswers, evidence: Evidence, categories: Sequence[str]) -> LoggedQueries:
    """Logged answers as graded queries of one expert each, on the scale of graded scores.

    `worth` (n, m) is what a choice is judged by: the unbiased pseudo-outcome w[c, e] + 1[e = a] (r - w[c, a]) / p, with
    weights clipped as everywhere (Dudik et al. 2011).
    """
    table, log = evidence.outcomes, asked.log
    rows = (*(name for name in categories if name != GENERAL), GENERAL)
    row, expert = category_rows(log, rows), log.expert_in(table.experts)
    at = np.arange(len(log))
    reward = log.reward - evidence.reward_offset
    worth = evidence.matrix.quality[row].astype(np.float64)
    worth[at, expert] += np.minimum(1.0 / log.propensity, MAX_WEIGHT) * (reward - worth[at, expert])
    scores = np.full((len(log), len(table.experts)), np.nan, dtype=np.float32)
    scores[at, expert] = np.clip(reward, 0.0, 1.0)
    unknown = np.full(scores.shape, np.nan, dtype=np.float32)
    rewarded = replace(
        table,
        prompt_ids=tuple(bytes(name).decode() for name in log.ids),
        texts=asked.texts,
        categories=tuple(rows[i] for i in row),
        splits=("train",) * len(log),
        scores=scores,
        cost_usd=unknown,
        output_tokens=unknown,
        latency_ms=unknown,
        answers=None,
    )
    return LoggedQueries(rewarded, asked.embeddings.astype(np.float32), worth.astype(np.float32))


FAIR_ODDS = 5.0
"""Evidence, to 1, of their own answers without which new experts are given nothing by a candidate (ours)."""


@dataclass(frozen=True)
class Judgement:
    """The gate's result, by `n_judged` logged answers among others; `new_experts` are those to whom the candidate gives
    something."""

    gate: GateResult
    n_judged: int
    new_experts: NewExperts | None


def decide_promotion(inputs: RetrainInputs, comparison: RouterComparison) -> Judgement:
    """Compares both routers on labels, grades and the log, and asks the gate."""
    queries = [query for query in inputs.queries if split_of(query.text) == "test"]
    graded, is_held_out = judged_outcomes(inputs.outcomes)
    asked = embed(inputs.encoder, graded.texts, inputs.progress)
    on_outcomes = comparison.on_outcomes(graded, asked, is_held_out=is_held_out)
    crossed = None if is_held_out else comparison.crossed(graded, asked)
    on_log = judge_on_log(inputs, comparison)
    on_labels = comparison.on_labels(queries, embed(inputs.encoder, [query.text for query in queries], inputs.progress))
    is_alike = (on_log is None or on_log.is_alike) and on_labels.is_nothing and on_outcomes.is_nothing
    n, new_experts = (0, None) if on_log is None else (on_log.n, on_log.new_experts)
    costs = comparison.map_costs() if on_log is None else on_log.comparison.costs_usd
    gate = judge(
        on_labels,
        on_outcomes,
        None if on_log is None else on_log.comparison.doubly_robust,
        terms=inputs.request.terms.model_copy(update={"decisions_per_row": inputs.log.n_rows / max(n, 1)}),
        cost_live_usd=costs[0],
        cost_candidate_usd=costs[1],
        crossed=crossed,
        is_other=not is_alike or bool(map_changes(comparison.live, comparison.candidate)),
    )
    return Judgement(without_passengers(gate, new_experts), n, new_experts)


def without_passengers(gate: GateResult, new_experts: NewExperts | None) -> GateResult:
    """The gate's result, unless a promoted candidate gives new experts something without FAIR_ODDS of their own
    answers: what else it gains must not carry them."""
    if gate.verdict is not Verdict.PROMOTE or new_experts is None or new_experts.gain.log_e >= math.log(FAIR_ODDS):
        return gate
    enough = f"{FAIR_ODDS * new_experts.gain.level:g} times that would be enough here"
    reason = f"what {', '.join(new_experts.experts)} would get is not shown: {shown(new_experts.gain)}; {enough}"
    return replace(gate, verdict=Verdict.NEED_MORE, reason=reason)
