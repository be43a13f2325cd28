"""Newcomers that are worth something: an expert that joins, a category that somebody adds. Are they learned?

The share of a newcomer's worth that a router has does not depend on whatever else it knows:

    expert:    sum over rows that it serves of q_new - q_best, of the sum over rows where that is positive
    category:  (v - v_before) / (v_best - v_before), of the category's own queries

q are true mean scores of a row of the map, v that of the router in force on the category's queries, v_before that of
the best map of those who knew nothing of it, v_best that of the best single expert.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.loop_arms import Retraining
from benchmarks.loop_fleet import (
    CATEGORY,
    Float64Array,
    IntArray,
    Moment,
    World,
    build_world,
    moment_of,
    redealt,
    sampled_table,
    without,
)
from benchmarks.loop_stage import Settings, Stage, fit_stage
from coe.eval.probe_plan import Bars, chances_of_luck, run_plan
from coe.router.protocols import Encoder
from coe.router.section import PluginConfig
from coe.training.expert_map import measure_quality, row_numbers
from coe.training.onboarding import MAX_LUCK, joined_evidence, with_newcomer

BLOCK = 500
SHARE = 0.2
"""Share of the traffic that is of the category that the newcomer is worth something in."""

PROBES = 64
"""Of a new expert, as by `coe experts probe`."""

PER_CATEGORY = 250
HALF, MOST = 0.5, 0.9

ALIKE = 0.5
"""Share of the prompts on which an expert that is nowhere better scores as who serves does, by design."""


@dataclass(frozen=True)
class Newcomer:
    """A newcomer: `expert`, worth most in `category`; or, where there is none, the category itself. `experts` of the
    table, all if empty."""

    table: str
    category: str
    expert: str = ""
    experts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.expert or self.category


FASTEVAL = (
    "wizardmath-70b-v1.0",
    "wizardcoder-python-34b-v1.0",
    "wizardlm-70b-v1.0",
    "llama-2-70b-chat",
    "llama2-70b-oasst-sft-v10",
    "stablebeluga2",
    "wizardmath-13b-v1.0",
    "vicuna-33b-v1.3",
)
SMALL = (
    "mathstral-7b",
    "llama-3.1-8b-instruct",
    "mistral-7b-instruct-v0.2",
    "qwen1.5-7b-chat",
    "phi-3-mini-4k-instruct",
    "gemma-7b",
)
NEWCOMERS = (
    Newcomer("fasteval", "python_code", experts=FASTEVAL),
    Newcomer("llmrouter_dc", "math"),
    Newcomer("llmrouter_dc", "commonsense_qa"),
    Newcomer("llmrouter_dc", "agentverse-logicgrid"),
    Newcomer("fasteval", "python_code", "wizardcoder-python-34b-v1.0", FASTEVAL),
    Newcomer("llmrouter_dc", "math", "llama-3.3-nemotron-super-49b-v1"),
    Newcomer("routerbench", "commonsense", "gpt-4-1106-preview"),
    Newcomer("mmlu_pro_cot", "engineering", "mathstral-7b", SMALL),
)
"""An expert that is best by 8 points or more in some category of its table, a category whose best expert is better by 7
or more than who would serve it unknown (by the train rows)."""


@dataclass(frozen=True)
class Place:
    """The world of a newcomer, with stage 1 before and after it; the same one where an expert joins."""

    newcomer: Newcomer
    world: World
    stages: tuple[Stage, Stage]


@dataclass(frozen=True)
class Joining:
    """One run of one arm. `has` is the share of the newcomer's worth that is served at the end of each block, `worth`
    how much that is per query of what it is worth something in; a category counts only if it is told apart. `serves`: a
    new expert was given a category at some time."""

    newcomer: Newcomer
    arm: str
    worth: float
    has: tuple[float, ...]
    serves: bool = False

    def decisions(self, share: float) -> float:
        """Decisions with the newcomer until the router has such a share of its worth; infinite where it never did."""
        reached = [n for n, has in enumerate(self.has, start=1) if has >= share]
        return float(reached[0] * BLOCK) if reached else float("inf")


def place_of(newcomer: Newcomer, data: Path, encoder: Encoder, kind: PluginConfig, seed: int) -> Place:
    """The newcomer's world, whose prompts are drawn by the seed."""
    rng = np.random.default_rng(seed)
    table = sampled_table(data / newcomer.table, PER_CATEGORY, rng, newcomer.experts or None)
    held_out = None if newcomer.expert else newcomer.category
    world = build_world(table, encoder, rng, newcomer=held_out)
    before = fit_stage(world, kind, rng)
    if held_out is None:
        return Place(newcomer, world, (before, before))
    return Place(newcomer, world, (before, fit_stage(known_to(world), kind, rng)))


def known_to(world: World) -> World:
    """The world of those who have been shown examples of the new category."""
    return replace(world, queries=(*world.queries, *world.examples))


def imitated(world: World, serves: Mapping[str, str], name: str, rng: np.random.Generator) -> World:
    """The world with an expert that is as good as who serves each category, on other prompts, and nowhere better."""
    traffic, column = world.traffic, world.traffic.experts.index(name)
    asked = np.array(traffic.categories)
    tables = []
    for table in (world.probes, traffic):
        scores, own = table.scores.copy(), np.array(table.categories)
        for category in sorted(set(table.categories)):
            serving, inside = traffic.experts.index(serves[category]), np.flatnonzero(own == category)
            scores[inside, column] = scores[inside, serving]
            others = inside[rng.random(len(inside)) >= ALIKE]
            answers = traffic.scores[others if table is traffic else asked == category, serving]
            scores[others, column] = rng.choice(answers, len(others), replace=table is not traffic)
        tables.append(replace(table, scores=scores))
    return replace(world, probes=tables[0], traffic=tables[1])


def joining_run(
    place: Place, settings: Settings, arm: str, blocks: int, seed: Sequence[int], *, is_imitation: bool = False
) -> Joining:
    """So many blocks of decisions without the newcomer, and as many with it.

    An expert is probed as by `coe experts probe`, and the router that this makes is live; a category is added with its
    examples as by `coe train`. With `is_imitation` the expert is as good as who serves, and nowhere better.
    """
    rng = np.random.default_rng(seed)
    newcomer, world = place.newcomer, redealt(place.world, rng)
    absent = (newcomer.expert,) if newcomer.expert else ()
    shares = {newcomer.category: SHARE}
    before = moment_of(world, absent=absent, shares=shares if newcomer.expert else None)
    loop = Retraining(world, place.stages[0], settings, rng, before.experts)
    for _ in range(blocks):
        loop.serve(before, BLOCK)
    if is_imitation:
        world = loop.world = imitated(world, loop.router.expert_of(), newcomer.expert, rng)
    after = moment_of(world, shares=shares)
    if not newcomer.expert:
        low, high = levels_of(before, after, loop.rows, world)
        accept(loop, place.stages[1], known_to(world))
        has = []
        for _ in range(blocks):
            loop.serve(after, BLOCK)
            has.append((value_there(loop, after, world) - low) / (high - low) * is_told_apart(loop, world))
        return Joining(newcomer, arm, high - low, tuple(has))
    gains = gains_of(newcomer.expert, after, loop.rows, world)
    best, number = gains.clip(min=0.0), world.traffic.experts.index(newcomer.expert)
    of_row = np.bincount(loop.rows, weights=after.mix, minlength=len(gains))
    total = float(best.sum())
    join(loop, newcomer.expert)
    is_given, has = [bool((loop.wanted == number).any())], []
    for _ in range(blocks):
        loop.serve(after, BLOCK)
        is_given.append(bool((loop.wanted == number).any()))
        has.append(float(gains @ loop.tables[-1][:, number]) / max(total, 1e-9))
    worth = total / max(float(of_row[gains > 0].sum()), 1e-9)
    return Joining(newcomer, arm, worth, tuple(has), any(is_given))


def accept(loop: Retraining, stage: Stage, world: World) -> None:
    """Somebody adds a category to experts.yaml and runs `coe train`: stage 1 knows it, its row of the map is a
    guess. `stage` and `world` are as they are with it."""
    before = loop.router.categories
    row = next(i for i, name in enumerate(stage.router.categories) if name not in before)
    for kept in (loop.tables, loop.qualities, loop.planned):
        kept[:] = [np.insert(each, row, 0, axis=0) for each in kept]
    for block in loop.history.blocks:
        block[CATEGORY] += block[CATEGORY] >= row
    loop.world, loop.stage, loop.rows = world, stage, stage.rows(world.traffic)
    loop.take_over(measure_quality(loop.probes, world.categories), loop.experts)


def join(loop: Retraining, name: str) -> None:
    """`coe experts probe` of a new expert, with the world's probes of it; the router that this makes is live."""
    graded, rows = loop.world.probes, row_numbers(loop.world.probes, loop.world.categories)
    column = graded.experts.index(name)
    own = [loop.rng.permutation(np.flatnonzero(rows == row)) for row in range(len(loop.router.categories))]
    serving = [loop.router.experts.index(expert) for expert in loop.router.expert_of().values()]
    at = np.arange(len(serving))
    quality, stderr = (getattr(loop.evidence, each)[at, serving].astype(float) for each in ("quality", "stderr"))
    bars = Bars(quality, stderr, np.array([len(each) for each in own], dtype=float))

    def ask(asked: Float64Array) -> tuple[Float64Array, Float64Array]:
        sums = [graded.scores[each[: int(n)], column].sum() for each, n in zip(own, asked[0], strict=True)]
        return np.array([sums], dtype=float), asked

    sums, counts = run_plan(bars, PROBES, ask)
    luck = chances_of_luck(bars, PROBES, sums, counts)
    chosen = np.concatenate([each[: int(n)] for each, n in zip(own, counts[0], strict=True)])
    probed = graded.rows(np.sort(chosen))
    others = [each for each in graded.experts if each != name]
    joined = joined_evidence(loop.evidence, without(probed, others), without(graded, [name]), loop.world.categories)
    scores = graded.scores.copy()
    scores[np.isin(np.arange(len(scores)), chosen, invert=True), column] = np.nan
    loop.world = replace(loop.world, probes=replace(graded, scores=scores))
    loop.experts = (*loop.experts, name)
    loop.take_over(with_newcomer(joined, np.array(serving), luck <= MAX_LUCK), loop.experts)


def gains_of(expert: str, moment: Moment, rows: IntArray, world: World) -> Float64Array:
    """(k+1,) what the traffic gains where the expert serves a row instead of the best of the others."""
    weighted = moment.mix[:, None] * moment.quality
    own = world.traffic.experts.index(expert)
    found = np.zeros(len(world.categories) + 1)
    for row in np.unique(rows):
        total = weighted[rows == row].sum(axis=0)
        found[row] = total[own] - np.delete(total, own).max()
    return found


def levels_of(before: Moment, after: Moment, rows: IntArray, world: World) -> tuple[float, float]:
    """Mean score on the new category's queries of the best map without it, and of the best expert for it."""
    weighted = before.mix[:, None] * before.quality
    serves = np.full(len(rows), int(weighted.sum(axis=0).argmax()))
    for row in np.unique(rows):
        if before.mix[rows == row].any():
            serves[rows == row] = weighted[rows == row].sum(axis=0).argmax()
    inside = np.array(world.traffic.categories) == world.newcomer
    quality = after.quality[inside]
    return float(quality[np.arange(len(quality)), serves[inside]].mean()), float(quality.mean(axis=0).max(initial=0.0))


def value_there(loop: Retraining, moment: Moment, world: World) -> float:
    inside = np.flatnonzero(np.array(world.traffic.categories) == world.newcomer)
    return float((moment.quality[inside] * loop.tables[-1][loop.rows[inside]]).sum(axis=1).mean())


def is_told_apart(loop: Retraining, world: World) -> bool:
    """At least half of the new category's queries are decided as it."""
    inside = np.array(world.traffic.categories) == world.newcomer
    return bool((loop.rows[inside] == loop.router.categories.index(world.newcomer)).mean() >= HALF)
