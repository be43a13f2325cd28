"""Verdict on a candidate, by comparisons with the live router on labels, grades and the log."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from coe.router.pipeline import Router
from coe.router.types import Float64Array, IntArray, Verdict
from coe.training.change_points import ChangePoint, is_outdated
from coe.training.fit_inputs import judged_outcomes
from coe.training.gate import GateResult, judge, shown
from coe.training.judged_pairs import JudgedPairs, together
from coe.training.log_answers import choices_on, sample_rows
from coe.training.log_table import LogTable
from coe.training.retrain_inputs import RetrainInputs
from coe.training.router_comparison import LogComparison, Newcomers, RouterComparison
from coe.training.stage_one import embed
from coe.training.types import split_of

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
