"""Verdict on a candidate: it decides like a router that is there, or the gate says what becomes of it.

Alike means that for every query compared, under every policy, both name the same category and want the same expert.
What they predict of quality, and so the order in which others stand in for an expert that is down, and the shares by
which others are explored, may differ: every new rating moves them a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from router.pipeline import Router
from router.types import Float64Array, FloatArray, IntArray, QueryBatch, Verdict
from training.change_points import ChangePoint, is_outdated
from training.fit_inputs import judged_outcomes
from training.gate import Comparison, GateResult, judge, shown
from training.judged_pairs import JudgedPairs, together
from training.log_answers import BATCH_ROWS, AskedAnswers, batch_of, decisions_of, logged_batches, sample_rows
from training.log_table import LogTable
from training.retrain_inputs import RetrainInputs
from training.router_comparison import LogComparison, Newcomers, RouterComparison
from training.stage_one import embed
from training.types import split_of

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

    gate: GateResult | None
    reason: str
    estimates: tuple[Comparison, ...] = ()
    n_judged: int = 0
    newcomers: Newcomers | None = None


def find_equal(inputs: RetrainInputs, comparison: RouterComparison, trial: Router | None) -> Judgement | None:
    """Verdict on a candidate that decides like the live router, or like the one on trial; None where it differs.

    An empty log is left to `decide_promotion`, which has a better reason to decline.
    """
    graded, _ = judged_outcomes(inputs.outcomes)
    texts = [*(query.text for query in inputs.queries), *graded.texts]
    embeddings = embed(inputs.encoder, texts, inputs.progress)
    rivals = {"the live router": comparison.live} if len(inputs.log) else {}
    if trial is not None:
        rivals[f"router {trial.version}, which is on trial"] = trial
    equal = {name: one for name, one in rivals.items() if decide_alike(one, comparison.candidate, texts, embeddings)}
    if not equal:
        return None
    rows = np.flatnonzero(inputs.log.expert_in(comparison.candidate.experts) >= 0)
    asked = inputs.answers(inputs.log, rows, MAX_JUDGED)
    for name, one in equal.items():
        if decide_log_alike(one, comparison.candidate, asked):
            n = f"{len(inputs.queries)} labelled, {len(graded.texts)} graded and {len(asked)} logged queries"
            return Judgement(None, f"declined: changes nothing, because it decides like {name} on {n}")
    return None


def decide_promotion(inputs: RetrainInputs, comparison: RouterComparison) -> Judgement:
    """Result of the gate, and the sentence that explains it."""
    log = inputs.log
    if not map_changes(comparison.live, comparison.candidate) and not len(log):
        return Judgement(None, "declined: the log holds no decision with feedback, and nothing else changed the map")
    queries = [query for query in inputs.queries if split_of(query.text) == "test"]
    graded, is_held_out = judged_outcomes(inputs.outcomes)
    asked = embed(inputs.encoder, graded.texts, inputs.progress)
    on_outcomes = comparison.on_outcomes(graded, asked, is_held_out=is_held_out)
    crossed = None if is_held_out else comparison.crossed(graded, asked)
    on_log, newcomers, n_judged = judge_on_log(inputs, comparison)
    costs = comparison.map_costs() if on_log is None else on_log.costs_usd
    gate = judge(
        comparison.on_labels(queries, embed(inputs.encoder, [query.text for query in queries], inputs.progress)),
        on_outcomes,
        None if on_log is None else on_log.doubly_robust,
        terms=inputs.request.terms.model_copy(update={"decisions_per_row": log.n_rows / max(n_judged, 1)}),
        cost_live_usd=costs[0],
        cost_candidate_usd=costs[1],
        crossed=crossed,
    )
    gate = without_passengers(gate, newcomers)
    return Judgement(gate, gate.sentence, on_log.others if on_log else (), n_judged, newcomers)


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
) -> tuple[LogComparison | None, Newcomers | None, int]:
    """Comparisons on logged answers that say what both routers are worth now, and how many those are."""
    log = inputs.log
    rows, share = judged_rows(log, inputs.changes, comparison)
    kept = sample_rows(log, rows, MAX_JUDGED)
    asked = inputs.answers(log, kept, MAX_JUDGED)
    if not len(asked):
        return None, None, 0
    own = share[kept[np.isin(log.ids[kept], asked.log.ids)]]  # both in the order of rows; some were erased since
    choices, terms = comparison.choices(asked), inputs.request.terms
    pairs, judged = None, judging_pairs(log, inputs.changes, comparison)
    if judged is not None:
        compared = inputs.answers(judged, np.arange(len(judged)), MAX_JUDGED)
        pairs = JudgedPairs(compared.log, comparison.choices(compared))
    newcomers = comparison.on_newcomers(asked, own, choices, terms, pairs)
    return comparison.on_log(asked, own, choices, terms), newcomers, len(asked)


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


def decide_alike(one: Router, other: Router, texts: Sequence[str], embeddings: FloatArray) -> bool:
    """Returns whether both know the same experts and decide these queries alike under every policy.

    Args:
        embeddings: (n, d) of the texts, by the encoder of both.
    """
    if set(one.experts) != set(other.experts) or set(one.policies) != set(other.policies):
        return False
    return all(
        are_alike(one, other, batch_of(texts[start:end], embeddings[start:end]), policy, ())
        for policy in one.policies
        for start, end in pairwise((*range(0, len(texts), BATCH_ROWS), len(texts)))
    )


def decide_log_alike(one: Router, other: Router, asked: AskedAnswers) -> bool:
    """Returns whether both decide logged queries alike, under the policy and with the experts that each had then."""
    return all(are_alike(one, other, batch, policy, excluded) for _, batch, policy, excluded in logged_batches(asked))


def are_alike(one: Router, other: Router, batch: QueryBatch, policy: str, excluded: Sequence[str]) -> bool:
    """Returns whether both decide the queries alike, without the excluded experts."""
    made = (decisions_of(router, batch, policy, set(router.experts) - set(excluded)) for router in (one, other))
    return all((a.category, a.ranking[0]) == (b.category, b.ranking[0]) for a, b in zip(*made, strict=True))
