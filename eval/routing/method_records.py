"""Every method beside the arms, with paired intervals, and RouterArena's score of all that can be deployed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval.metrics.bootstrap import bootstrap_means, percentile_interval
from eval.metrics.gap import gap_closed, gap_closed_draws
from eval.metrics.router_arena import router_arena_score
from eval.routing.baselines import one_hot
from eval.routing.compare import expected_amount, shares
from eval.routing.routing_records import Difference, MethodRecord, Range
from eval.routing.section_inputs import HINDSIGHT, MethodOutput, SectionInputs

Float64Array = NDArray[np.float64]

AGAINST = ("coe", "best_single", "map_true", "knn")


def build_methods(inputs: SectionInputs, rng: np.random.Generator) -> dict[str, MethodRecord]:
    """Records by method name, in the order given."""
    if not inputs.methods:
        return {}
    names = [*AGAINST, "query_oracle"]
    probs = [inputs.choices[name] for name in names]
    probs += [one_hot(method.chosen, len(inputs.experts)) for method in inputs.methods]
    columns = np.stack([(part * inputs.scores).sum(axis=1) for part in probs], axis=1)
    draws = bootstrap_means(columns, rng)
    means = columns.mean(axis=0)
    return {
        method.name: method_record(inputs, method, probs[len(names) + i], means, draws, len(names) + i)
        for i, method in enumerate(inputs.methods)
    }


def method_record(
    inputs: SectionInputs,
    method: MethodOutput,
    probs: Float64Array,
    means: Float64Array,
    draws: Float64Array,
    column: int,
) -> MethodRecord:
    """`means` (a,) and `draws` (b, a): first the choices of `AGAINST`, then the query oracle, then the methods."""
    share, share_interval = closed(means, draws, column)
    return MethodRecord(
        label=method.label,
        how=method.how,
        mean_score=float(means[column]),
        interval=percentile_interval(draws[:, column]),
        mean_cost_usd=expected_amount(probs, inputs.cost_usd),
        mean_active_params_b=expected_amount(probs, inputs.sizes_b),
        shares=shares(probs, inputs.experts),
        gap_closed=share,
        gap_closed_interval=share_interval,
        gain={
            name: Difference(
                mean=float(means[column] - means[i]), interval=percentile_interval(draws[:, column] - draws[:, i])
            )
            for i, name in enumerate(AGAINST)
        },
        is_default=method.is_default,
        valid_score=method.valid_score,
        fit_s=method.fit_s,
        decide_us=method.decide_us,
    )


def closed(means: Float64Array, draws: Float64Array, column: int) -> tuple[float | None, Range | None]:
    """`gap_closed` of a method, with its interval."""
    index = [column, AGAINST.index("best_single"), len(AGAINST)]
    value = gap_closed(*(float(means[i]) for i in index))
    drawn = gap_closed_draws(*(draws[:, i] for i in index))
    return value, percentile_interval(drawn) if value is not None and len(drawn) else None


def build_router_arena(inputs: SectionInputs, rng: np.random.Generator) -> dict[str, tuple[float, Range]]:
    """By arm and method, each with its interval over queries; what needs hindsight and what has no known cost is left
    out."""
    probs = {name: part for name, part in inputs.choices.items() if name not in HINDSIGHT}
    probs |= {method.name: one_hot(method.chosen, len(inputs.experts)) for method in inputs.methods}
    known = [name for name, part in probs.items() if expected_amount(part, inputs.cost_usd) is not None]
    if not known:
        return {}
    spent = np.nan_to_num(inputs.cost_usd)  # unknown costs have probability 0 in all that is known
    columns = [(probs[name] * amounts).sum(axis=1) for name in known for amounts in (inputs.scores, spent)]
    values = np.stack(columns, axis=1)
    means, draws = values.mean(axis=0), bootstrap_means(values, rng)
    return {
        name: (
            arena_score(means[2 * i], means[2 * i + 1]),
            percentile_interval(np.array([arena_score(*pair) for pair in draws[:, 2 * i : 2 * i + 2]])),
        )
        for i, name in enumerate(known)
    }


def arena_score(mean_score: float, cost_usd: float) -> float:
    """Of a mean score and USD per query; rounding may leave a mean a hair above 1."""
    return router_arena_score(min(max(mean_score, 0.0), 1.0), 1000 * cost_usd)
