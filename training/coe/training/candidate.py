"""A candidate for the place of the live router: its fit, and the verdict on it.

It is fitted on everything that is not held out, and ten times more without a part each: what it learned from judges it
by a model that was fitted without that. Shapes: n graded prompts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coe.router.artifact import RouterArtifact
from coe.router.pipeline import Router
from coe.router.protocols import Encoder
from coe.router.types import GENERAL, Float64Array, IntArray, Verdict
from coe.training.change_points import ChangePoint, is_outdated
from coe.training.evidence import Carried, Evidence, category_rows
from coe.training.expert_map import row_numbers
from coe.training.fit import Prepared, finish, prepare
from coe.training.fit_inputs import RetrainInputs, fit_request, judged_outcomes
from coe.training.gate import GateResult, judge, shown
from coe.training.graded_queries import LoggedQueries
from coe.training.judged_pairs import JudgedPairs, together
from coe.training.log_answers import AskedAnswers, choices_on, drawn_rows, sample_rows
from coe.training.log_table import FOLDS, LogTable
from coe.training.off_policy import MAX_WEIGHT
from coe.training.router_comparison import LogComparison, Newcomers, RouterComparison, folds_of
from coe.training.stage_one import FitRequest, embed
from coe.training.types import OutcomeTable, split_of

MAX_LEARNED = 10_000
"""Logged answers that a learned scorer is fitted on; the map counts all of them. More do not change a scorer enough to
be waited for (ours)."""


def fit_candidate(
    root: Path, inputs: RetrainInputs, evidence: Evidence, parent: str
) -> tuple[RouterArtifact, tuple[FittedModel, ...]]:
    """Fits the candidate under `root`, and its cross-fitted models, which judge what it is fitted on."""
    plain = fit_request(inputs.config, evidence.outcomes, inputs.queries)
    logged = None
    if plain.scorer.kind != "map" and len(inputs.log):
        thinned = drawn_rows(inputs.log, evidence.counted)  # answers above a key's share are left out at random
        asked = inputs.answers(inputs.log, thinned, MAX_LEARNED)
        logged = logged_queries(asked, evidence, plain.categories) if len(asked) else None
    wanted = replace(
        plain,
        evidence=evidence.matrix,
        outcomes=with_measured(evidence, inputs.carried),
        logged=logged,
        asked=inputs.asked(),
        parents=(parent,),
        data_fingerprints=dict(plain.data_fingerprints) | {"log": inputs.log.fingerprint},
    )
    prepared = prepare(wanted, inputs.encoder, inputs.queries, inputs.rng, inputs.progress)
    made = finish(root, wanted, inputs.encoder, prepared, inputs.now)
    inputs.progress("fitting it again without each tenth of the graded prompts and of the logged answers")
    table, folds = evidence.outcomes, folds_of(evidence.outcomes)

    def part_of(fold: int) -> tuple[Evidence, set[str]]:
        left_out = {name for name, own in zip(table.prompt_ids, folds, strict=True) if own == fold}
        left_out |= {bytes(name).decode() for name in inputs.log.ids[inputs.log.fold == fold]}
        return inputs.evidence(inputs.log.without(fold), table.rows(folds != fold)), left_out

    return made, cross_fit(root, wanted, inputs.encoder, prepared, part_of, inputs.now)


def with_measured(evidence: Evidence, carried: Carried | None) -> OutcomeTable:
    """Graded prompts that a learned scorer is fitted on. A carried expert has no grades to learn from, so its column
    says of every prompt what was measured of the category."""
    table = evidence.outcomes
    if carried is None:
        return table
    known = evidence.matrix.quality[row_numbers(table, carried.rows[:-1])]
    is_carried = np.array([name in carried.experts for name in table.experts])
    return replace(table, scores=np.where(is_carried, known, table.scores).astype(np.float32))


class FittedModel(NamedTuple):
    """The folder of a router, and the evidence that it was fitted on."""

    folder: Path
    evidence: Evidence


def cross_fit(
    root: Path,
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
        made = finish(root, replace(request, evidence=evidence.matrix), encoder, prepared.without(left_out), now)
        found.append(FittedModel(root / made.manifest.version, evidence))
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
        logprobs=None,
    )
    return LoggedQueries(rewarded, asked.embeddings.astype(np.float32), worth.astype(np.float32))


FAIR_ODDS = 5.0
"""Evidence, to 1, of their own answers without which new experts are given nothing by a candidate (ours)."""

MAX_JUDGED = 20_000
"""Logged answers that a candidate is judged on. More do not change an interval enough to be waited for (ours)."""


@dataclass(frozen=True)
class MapChange:
    """A category whose expert differs between the live router and the candidate."""

    category: str
    live: str
    candidate: str


@dataclass(frozen=True)
class Judgement:
    """Outcome of a comparison, in which `n_judged` logged answers were compared on; `newcomers` are experts to whom the
    candidate gives something."""

    gate: GateResult
    n_judged: int
    newcomers: Newcomers | None


def decide_promotion(inputs: RetrainInputs, comparison: RouterComparison) -> Judgement:
    """Result of the gate."""
    queries = [query for query in inputs.queries if split_of(query.text) == "test"]
    graded, is_held_out = judged_outcomes(inputs.outcomes)
    asked = embed(inputs.encoder, graded.texts, inputs.progress)
    on_outcomes = comparison.on_outcomes(graded, asked, is_held_out=is_held_out)
    crossed = None if is_held_out else comparison.crossed(graded, asked)
    on_log, newcomers, n_judged, is_alike = judge_on_log(inputs, comparison)
    costs = comparison.map_costs() if on_log is None else on_log.costs_usd
    on_labels = comparison.on_labels(queries, embed(inputs.encoder, [query.text for query in queries], inputs.progress))
    is_alike = is_alike and on_labels.is_nothing and on_outcomes.is_nothing
    gate = judge(
        on_labels,
        on_outcomes,
        None if on_log is None else on_log.doubly_robust,
        terms=inputs.request.terms.model_copy(update={"decisions_per_row": inputs.log.n_rows / max(n_judged, 1)}),
        cost_live_usd=costs[0],
        cost_candidate_usd=costs[1],
        crossed=crossed,
        is_other=not is_alike or bool(map_changes(comparison.live, comparison.candidate)),
    )
    return Judgement(without_passengers(gate, newcomers), n_judged, newcomers)


def without_passengers(gate: GateResult, newcomers: Newcomers | None) -> GateResult:
    """The gate's result, unless a promoted candidate gives new experts something without FAIR_ODDS of their own
    answers: what else it gains must not carry them."""
    if gate.verdict is not Verdict.PROMOTE or newcomers is None or newcomers.gain.log_e >= math.log(FAIR_ODDS):
        return gate
    enough = f"{FAIR_ODDS * newcomers.gain.level:g} times that would be enough here"
    reason = f"what {', '.join(newcomers.experts)} would get is not shown: {shown(newcomers.gain)}; {enough}"
    return replace(gate, verdict=Verdict.NEED_MORE, reason=reason)


def judge_on_log(
    inputs: RetrainInputs, comparison: RouterComparison
) -> tuple[LogComparison | None, Newcomers | None, int, bool]:
    """Comparisons on logged answers that say what both routers are worth now, how many those are, and whether the
    candidate, with all that it learned from, wants the same experts for all of them."""
    log = inputs.log
    rows, share = judged_rows(log, inputs.changes, comparison)
    kept = sample_rows(log, rows, MAX_JUDGED)
    asked = inputs.answers(log, kept, MAX_JUDGED)
    if not len(asked):
        return None, None, 0, True
    own = share[kept[np.isin(log.ids[kept], asked.log.ids)]]  # both in the order of rows; some were erased since
    choices, terms = comparison.choices(asked), inputs.request.terms
    whole = choices_on(comparison.candidate, asked, comparison.experts)
    is_alike = bool((whole.chosen == choices[0].chosen).all())
    pairs, judged = None, judging_pairs(log, inputs.changes, comparison)
    if judged is not None:
        compared = inputs.answers(judged, np.arange(len(judged)), MAX_JUDGED)
        pairs = JudgedPairs(compared.log, comparison.choices(compared))
    newcomers = comparison.on_newcomers(asked, own, choices, terms, pairs)
    return comparison.on_log(asked, own, choices, terms), newcomers, len(asked), is_alike


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


def mean_costs(live: Router, candidate: Router) -> tuple[float, float]:
    """Mean cost of a query under the default policies, USD."""
    now, then = (float(router.policy("default").solution.used["cost_usd"]) for router in (live, candidate))
    return now, then


def map_changes(live: Router, candidate: Router) -> tuple[MapChange, ...]:
    """Categories that the candidate sends elsewhere."""
    before, after = live.expert_of(), candidate.expert_of()
    return tuple(
        MapChange(category, before[category], after[category])
        for category in after
        if category in before and before[category] != after[category]
    )
