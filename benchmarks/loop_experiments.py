"""Questions to the learning loop, with the truth at hand: does it pay, does it err, does it recover?

All of it runs the code of `coe retrain` over a `World` (benchmarks.loop_fleet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.loop_arms import Retraining
from benchmarks.loop_fleet import Float64Array, Moment, World, moment_of, reachable_value, redealt
from benchmarks.loop_stage import Settings, Stage

BLOCK = 500
NULL_SPAN = 0.03
"""By how much the best expert of a null world is better than each other one, at most."""


@dataclass(frozen=True)
class Paid:
    """One loop, in mean true scores: what each block's router serves (blocks,) above the first map, what its last map
    has above the first one, the best single expert above the first map, and what a map could come to. `moves` are the
    true gains of the traffic by each category that changed hands."""

    served: Float64Array
    mapped: float
    single: float
    reachable: float
    moves: tuple[float, ...]


def paying_run(
    world: World, stage: Stage, settings: Settings, blocks: int, seed: Sequence[int], *, is_null: bool = False
) -> Paid:
    """A loop from the grades of a world that is dealt anew. In a null world the best single expert serves everything,
    and is the best in every category."""
    rng = np.random.default_rng(seed)
    dealt = redealt(world, rng, world.per_category)
    best = None
    if is_null:
        dealt, best = nulled(dealt, rng)
    moment = moment_of(dealt, is_natural=True)
    loop = Retraining(dealt, stage, settings, rng, moment.experts)
    if best is not None:
        everywhere = np.full(len(loop.wanted), best, dtype=np.float32)
        loop.take_over(replace(loop.evidence, serving=everywhere), loop.experts)
    first, served = mapped_value(loop, moment), []
    for _ in range(blocks):
        served.append(loop.value(moment) - first)
        loop.serve(moment, BLOCK)
    moves = tuple(gain for done in loop.rounds for gain in done.moved.values())
    single = float((moment.mix @ moment.quality).max())
    reachable = reachable_value(moment, loop.rows, dealt)
    return Paid(np.array(served), mapped_value(loop, moment) - first, single - first, reachable - first, moves)


def mapped_value(loop: Retraining, moment: Moment) -> float:
    """Mean true score without exploration."""
    return float(moment.mix @ moment.quality[np.arange(len(loop.rows)), loop.wanted[loop.rows]])


def nulled(world: World, rng: np.random.Generator) -> tuple[World, int]:
    """The world with the other experts' scores changed, prompt by prompt, until the best single expert is ahead of each
    in every category by up to NULL_SPAN; and its number."""
    whole = world.probes.joined(world.traffic)
    scores, categories = (whole.scores >= 0.5).astype(np.float32), np.array(whole.categories)
    best = int(scores.mean(axis=0).argmax())
    for category in sorted(set(whole.categories)):
        rows = np.flatnonzero(categories == category)
        for expert in (e for e in range(scores.shape[1]) if e != best):
            target = round(float(scores[rows, best].mean() - rng.uniform(0, NULL_SPAN)) * len(rows))
            own, target = scores[rows, expert], max(target, 0)
            off = int(own.sum()) - target
            changed = rng.choice(rows[own > 0] if off > 0 else rows[own == 0], abs(off), replace=False)
            scores[changed, expert] = float(off < 0)
    n = len(world.probes.texts)
    probes, traffic = (replace(t, scores=s) for t, s in ((world.probes, scores[:n]), (world.traffic, scores[n:])))
    return replace(world, probes=probes, traffic=traffic), best


@dataclass(frozen=True)
class Drift:
    """One run in which an expert falls: the share of what the fall cost, of what a map can reach, that is served again
    after each block (blocks,); the same without learning is 0."""

    recovered: Float64Array


def drifting_run(
    world: World,
    stage: Stage,
    settings: Settings,
    fall: tuple[str, float],
    absent: Sequence[str],
    blocks: int,
    seed: Sequence[int],
) -> Drift:
    """So many blocks of a world that is dealt anew, and as many after an expert's scores fell to a share."""
    rng = np.random.default_rng(seed)
    dealt = redealt(world, rng)
    before, after = moment_of(dealt, absent=absent), moment_of(dealt, absent=absent, factors=dict([fall]))
    loop = Retraining(dealt, stage, settings, rng, before.experts)
    for _ in range(blocks):
        loop.serve(before, BLOCK)
    low, high = loop.value(after), reachable_value(after, loop.rows, dealt)
    values = []
    for _ in range(blocks):
        loop.serve(after, BLOCK)
        values.append(loop.value(after))
    return Drift((np.array(values) - low) / (high - low))
