"""The records of a report on arms, methods, experts and categories. Shapes: n queries, m experts, a arms, b draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from eval.metrics.intervals import (
    Estimate,
    bootstrap_means,
    gap_closed,
    percentile_interval,
    queries_to_show,
    smallest_shown,
)
from eval.metrics.quality_over_cost import router_arena_score
from eval.routing import baselines
from eval.routing.baselines import one_hot
from eval.routing.routing_records import (
    Arm,
    CategoryRegret,
    CategoryRow,
    ExpertRow,
    LostQuery,
    MethodRecord,
    Power,
    Regret,
    StageOne,
)
from eval.routing.trial import HINDSIGHT, Choice, Trial, mean_costs
from router.types import GENERAL, Float64Array, IntArray
from training.types import OutcomeTable

AGAINST = ("coe", "best_single", "best_single_hindsight", "map_true", "knn")
REGRET_CHOICES: Final = ("query_oracle", "category_oracle", "map_true", "router", "served")
REGRET_PARTS: Final = ("beyond_categories", "map", "classifier", "serving")
TOLD_DIFFERENCE = 0.02
"""Difference of mean scores for which a report gives the number of queries that would show it: the margin of
`coe retrain` (ours)."""
SHOWN_LOST = 10
EXCERPT_CHARS = 200


def arm_scores(test: OutcomeTable, arms: Sequence[Choice]) -> Float64Array:
    """(n, a) expected score of each arm on each query."""
    return np.stack([(arm.probs * test.scores).sum(axis=1) for arm in arms], axis=1)


def expected_amount(probs: Float64Array, amounts: Float64Array) -> float | None:
    """Mean over queries of the expected amount (n, m) or (m,); None when an expert that may answer has none known."""
    used = probs > 0
    values = np.where(used, np.broadcast_to(amounts, probs.shape), 0.0)
    return None if np.isnan(values).any() else float((probs * values).sum(axis=1).mean())


def shares(probs: Float64Array, experts: Sequence[str]) -> dict[str, float]:
    """Share of the queries by expert, largest first, zeros left out."""
    means = probs.mean(axis=0)
    return {experts[e]: float(means[e]) for e in np.argsort(-means, kind="stable") if means[e] > 0}


def difference(means: Float64Array, draws: Float64Array, own: int, other: int) -> Estimate:
    """One column of `means` (a,) and `draws` (b, a) less another."""
    return Estimate.of(means[own] - means[other], draws[:, own] - draws[:, other])


def arm_records(trial: Trial, means: Float64Array, draws: Float64Array, rng: np.random.Generator) -> dict[str, Arm]:
    """Records by arm name. `means` (a,), `draws` (b, a)."""
    column = {arm.name: i for i, arm in enumerate(trial.arms)}
    records = {}
    for i, arm in enumerate(trial.arms):
        record = arm_record(trial, arm, means, draws, (i, column["best_single"], column["query_oracle"]))
        gain = {} if arm.asked is None else strategy_gains(trial, arm, rng)
        records[arm.name] = record.model_copy(update={"gain": gain})
    return records


def arm_record(trial: Trial, arm: Choice, means: Float64Array, draws: Float64Array, columns: Sequence[int]) -> Arm:
    """`columns` of `means` (a,) and `draws` (b, a): the arm, best single, oracle."""
    own = columns[0]
    return Arm(
        label=arm.label,
        how=arm.how,
        mean_score=float(means[own]),
        interval=percentile_interval(draws[:, own]),
        mean_cost_usd=expected_amount(arm.calls, trial.cost_usd),
        mean_active_params_b=expected_amount(arm.calls, trial.sizes_b),
        mean_calls=float(arm.calls.sum(axis=1).mean()),
        shares=shares(arm.probs, trial.test.experts),
        gap_closed=closed(means, draws, columns),
        binding=arm.binding,
    )


def strategy_gains(trial: Trial, arm: Choice, rng: np.random.Generator) -> dict[str, Estimate]:
    """Gains of a strategy over one expert, and over the best fixed mixture of experts that may spend as much."""
    rivals = {name: trial.probs[name] for name in ("coe", "best_single")}
    for name, amounts, used in (
        ("equal_active_params_b", trial.sizes_b, trial.sizes_b),
        ("equal_cost_usd", mean_costs(trial.fit), trial.cost_usd),
    ):
        spent = expected_amount(arm.calls, used)
        mixed = None if spent is None else baselines.best_mixture(trial.fit_means, amounts, spent)
        if mixed is not None:
            rivals[name] = np.broadcast_to(mixed, arm.probs.shape)
    values = np.stack([(probs * trial.scores).sum(axis=1) for probs in (arm.probs, *rivals.values())], axis=1)
    means, draws = values.mean(axis=0), bootstrap_means(values, rng)
    return {name: difference(means, draws, 0, i) for i, name in enumerate(rivals, start=1)}


def gains(arms: Sequence[Choice], means: Float64Array, draws: Float64Array) -> dict[str, Estimate]:
    """Gains of `coe` over each arm that could be deployed, and over the best single expert in hindsight."""
    column = {arm.name: i for i, arm in enumerate(arms)}
    rivals = ("best_single", "best_single_hindsight", "knn", "random", "best_mixture")
    return {name: difference(means, draws, column["coe"], i) for name, i in column.items() if name in rivals}


def power_of(scores: Float64Array, arms: Sequence[Choice]) -> Power:
    """The differences that n test queries can show between the router and the best single expert. `scores` (n, a)."""
    column = {arm.name: i for i, arm in enumerate(arms)}
    differences = scores[:, column["coe"]] - scores[:, column["best_single"]]
    n = len(differences)
    error = float(differences.std(ddof=1)) / math.sqrt(n) if n > 1 else 0.0
    return Power(
        smallest_shown=smallest_shown(error),
        difference=TOLD_DIFFERENCE,
        queries=queries_to_show(TOLD_DIFFERENCE, error, n),
    )


def closed(means: Float64Array, draws: Float64Array, columns: Sequence[int]) -> Estimate | None:
    """`gap_closed` with its interval. `columns` of `means` (a,) and `draws` (b, a): a choice, best single, oracle."""
    value = gap_closed(*(means[[i]] for i in columns))
    drawn = gap_closed(*(draws[:, i] for i in columns))
    return Estimate.of(value[0], drawn) if len(value) and len(drawn) else None


def regret_record(trial: Trial, rng: np.random.Generator) -> Regret:
    """The accounting over all queries and per true category. Offline nothing fails, so what was decided answers."""
    chosen = {
        "query_oracle": baselines.query_oracle(trial.test.scores, trial.sizes_b),
        "category_oracle": baselines.category_oracle(trial.test.scores, trial.test.categories),
        "map_true": trial.mapped,
        "router": trial.decided,
        "served": trial.decided,
    }
    columns = regret_columns(trial.scores, chosen)
    values, parts, total = account(columns, rng)
    labels = np.asarray(trial.test.categories)
    rows = []
    for category, count in Counter(trial.test.categories).most_common():
        inside = account(columns[labels == category], rng)
        rows.append(CategoryRegret(category=category, n=count, values=inside[0], parts=inside[1], total=inside[2]))
    return Regret(values=values, parts=parts, total=total, by_category=tuple(rows))


def regret_columns(scores: Float64Array, experts: Mapping[str, IntArray]) -> Float64Array:
    """(n, 5) scores of `REGRET_CHOICES`, given as expert numbers (n,) by name, from the scores (n, m): the best expert
    of the query; the best of its true category, in hindsight; the map applied to the true category; what the router
    decided; what answered after masks, budgets of the moment and failures."""
    return np.take_along_axis(scores, np.stack([experts[name] for name in REGRET_CHOICES], axis=1), axis=1)


def regret_parts(columns: Float64Array) -> Float64Array:
    """(n, 4) losses from each choice to the next, in the order of `REGRET_PARTS` (ours). Each may be negative, but
    `beyond_categories` never is in the mean of a category. Rows sum to the first column minus the last."""
    return columns[:, :-1] - columns[:, 1:]


def account(columns: Float64Array, rng: np.random.Generator) -> tuple[dict[str, float], dict[str, Estimate], Estimate]:
    """Mean scores of the choices `columns` (n, 5), the parts and their sum."""
    measured = np.column_stack([regret_parts(columns), columns[:, 0] - columns[:, -1]])
    draws = bootstrap_means(measured, rng)
    differences = [Estimate.of(mean, draws[:, i]) for i, mean in enumerate(measured.mean(axis=0))]
    values = dict(zip(REGRET_CHOICES, (float(mean) for mean in columns.mean(axis=0)), strict=True))
    return values, dict(zip(REGRET_PARTS, differences, strict=False)), differences[-1]


def stage_one_record(trial: Trial) -> StageOne:
    """Accuracy and coverage of stage 1."""
    right = np.array([d.likely_category == c for d, c in zip(trial.decisions, trial.test.categories, strict=True)])
    sure = np.array([not decision.is_fallback for decision in trial.decisions])
    return StageOne(
        n_categories=len(trial.expert_of) - 1,
        accuracy=float(right.mean()),
        coverage=float(sure.mean()),
        error_when_sure=float((~right[sure]).mean()) if sure.any() else None,
    )


def expert_rows(trial: Trial, rng: np.random.Generator) -> tuple[ExpertRow, ...]:
    """Every expert alone, best first."""
    test, scores = trial.test, trial.scores
    means, draws = scores.mean(axis=0), bootstrap_means(scores, rng)
    sizes, price = trial.sizes_b, mean_costs(test)
    share = np.bincount(trial.decided, minlength=len(test.experts)) / len(test.prompt_ids)
    return tuple(
        ExpertRow(
            expert=test.experts[e],
            fit_score=float(trial.fit_means[e]),
            mean_score=float(means[e]),
            interval=percentile_interval(draws[:, e]),
            active_params_b=None if np.isnan(sizes[e]) else float(sizes[e]),
            mean_cost_usd=None if np.isnan(price[e]) else float(price[e]),
            share=float(share[e]),
        )
        for e in np.argsort(-means, kind="stable")
    )


def category_rows(trial: Trial, arms: Sequence[Choice], scores: Float64Array) -> tuple[CategoryRow, ...]:
    """Every true category of the test queries, largest first. `scores` (n, a)."""
    labels = np.asarray(trial.test.categories)
    likely = np.array([decision.likely_category for decision in trial.decisions])
    fallback = np.array([decision.is_fallback for decision in trial.decisions])
    in_fit = Counter(trial.fit.categories)
    rows = []
    for category, count in Counter(trial.test.categories).most_common():
        inside = labels == category
        rows.append(
            CategoryRow(
                category=category,
                n_fit=in_fit[category],
                n_test=count,
                expert=trial.expert_of.get(category, trial.expert_of[GENERAL]),
                accuracy=float((likely[inside] == category).mean()),
                fallback_share=float(fallback[inside].mean()),
                scores={arm.name: float(scores[inside, i].mean()) for i, arm in enumerate(arms)},
            )
        )
    return tuple(rows)


def build_methods(trial: Trial, rng: np.random.Generator) -> dict[str, MethodRecord]:
    """Records by method name, in the order given."""
    if not trial.methods:
        return {}
    m, names = len(trial.test.experts), [*AGAINST, "query_oracle"]
    arms = [Choice(each.name, each.label, each.how, one_hot(each.chosen, m)) for each in trial.methods]
    probs = [*(trial.probs[name] for name in names), *(arm.probs for arm in arms)]
    columns = np.stack([(part * trial.scores).sum(axis=1) for part in probs], axis=1)
    means, draws = columns.mean(axis=0), bootstrap_means(columns, rng)
    found = {}
    for i, (method, arm) in enumerate(zip(trial.methods, arms, strict=True), start=len(names)):
        record = arm_record(trial, arm, means, draws, (i, names.index("best_single"), names.index("query_oracle")))
        found[method.name] = MethodRecord(
            **dict(record) | {"gain": {name: difference(means, draws, i, j) for j, name in enumerate(AGAINST)}},
            is_default=method.is_default,
            valid_score=method.valid_score,
            fit_s=method.fit_s,
            decide_us=method.decide_us,
        )
    return found


def build_router_arena(trial: Trial, rng: np.random.Generator) -> dict[str, Estimate]:
    """By arm and method, each with its interval over queries; what needs hindsight and what has no known cost is left
    out."""
    probs = {name: part for name, part in trial.probs.items() if name not in HINDSIGHT}
    probs |= {method.name: one_hot(method.chosen, len(trial.test.experts)) for method in trial.methods}
    known = [name for name, part in probs.items() if expected_amount(part, trial.cost_usd) is not None]
    if not known:
        return {}
    spent = np.nan_to_num(trial.cost_usd)  # unknown costs have probability 0 in all that is known
    columns = [(probs[name] * amounts).sum(axis=1) for name in known for amounts in (trial.scores, spent)]
    values = np.stack(columns, axis=1)
    means, draws = values.mean(axis=0), bootstrap_means(values, rng)
    return {
        name: Estimate.of(
            router_arena_score(means[2 * i], 1000 * means[2 * i + 1]),
            np.array([router_arena_score(score, 1000 * cost) for score, cost in draws[:, 2 * i : 2 * i + 2]]),
        )
        for i, name in enumerate(known)
    }


def build_lost(trial: Trial, shown: int = SHOWN_LOST) -> tuple[LostQuery, ...]:
    """Queries by the best expert's score minus the chosen one's, largest first; of equals those that most experts would
    have answered, since they were easiest to get right. Queries without loss are left out."""
    rows = np.arange(len(trial.scores))
    own, best = trial.scores[rows, trial.decided], trial.scores.argmax(axis=1)
    loss = trial.scores[rows, best] - own
    order = np.lexsort((-trial.scores.mean(axis=1), -loss))
    return tuple(
        LostQuery(
            prompt_id=trial.test.prompt_ids[i],
            category=trial.test.categories[i],
            likely_category=trial.likely[i],
            excerpt=excerpt(trial.test.texts[i]),
            chosen=trial.test.experts[trial.decided[i]],
            chosen_score=float(own[i]),
            best=trial.test.experts[best[i]],
            best_score=float(trial.scores[i, best[i]]),
        )
        for i in order[:shown]
        if loss[i] > 0
    )


def excerpt(text: str) -> str:
    """The first 200 characters on one line; a cut is marked."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1].rstrip() + "\u2026"
