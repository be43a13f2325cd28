"""Questions to the learning loop, with the truth at hand: coverage of intervals, errors of the gate, recovery.

All of it runs the code of `coe retrain` over a `World` (benchmarks.loop_fleet).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.loop_arms import Retraining, Round, spoiled
from benchmarks.loop_baselines import Averaging, BetaBandit, Told
from benchmarks.loop_fleet import (
    THUMB_FLOOR,
    THUMB_SLOPE,
    Float64Array,
    Moment,
    World,
    moment_of,
    reachable_value,
    redealt,
)
from benchmarks.loop_stage import Settings, Stage, router_of
from coe.training.change_points import find_change_points
from coe.training.gate import Comparison

QUANTITIES = ("live", "candidate", "difference")
BLOCK = 500


@dataclass(frozen=True)
class Coverage:
    """One run: which intervals held the truth, and by how much they erred, by quantity; the `width` of that of the
    difference; whether the gate may conclude from the log."""

    is_conclusive: bool
    covers: Mapping[str, bool]
    error: Mapping[str, float]
    width: float


@dataclass(frozen=True)
class GateTrial:
    """One run of a loop: the true gain of its first promoted candidate, or of the last one that decided otherwise than
    the live router; whether it was promoted, and after how many decisions; the least gain of all that were judged."""

    gain: float
    is_promoted: bool
    decisions: int
    worst: float


def holds(comparison: Comparison, truth: Mapping[str, float]) -> dict[str, tuple[bool, float]]:
    found = {}
    for quantity in QUANTITIES:
        metric = getattr(comparison, quantity)
        assert metric.interval is not None
        inside = metric.interval.low <= truth[quantity] <= metric.interval.high
        found[quantity] = (inside, metric.value - truth[quantity])
    return found


def covering_run(
    world: World, stage: Stage, settings: Settings, absent: Sequence[str], t: int, noise: float, seed: Sequence[int]
) -> Coverage | None:
    """Intervals of one log of t decisions, for a candidate that was named before; None where it decides like the live
    router, or too few keys rated what it would change."""
    rng = np.random.default_rng(seed)
    dealt = redealt(world, rng)
    moment = moment_of(dealt, absent=absent)
    arm = Retraining(dealt, stage, settings, rng, moment.experts, is_learning=False)
    wrong = spoiled(arm.evidence, noise * rng.standard_normal(arm.evidence.quality.shape))
    for _ in range(t // BLOCK):
        arm.serve(moment, BLOCK)
    log, prompt = arm.log()
    changes = find_change_points(log)
    evidence, candidate = arm.learned(arm.probes, log, changes), router_of(stage, wrong, arm.experts, settings)
    done = arm.compare(moment, log, prompt, changes, arm.with_live(candidate, evidence), is_named_before=True)
    return None if done.on_log is None or done.on_log.doubly_robust.lacking else coverage_of(done)


def coverage_of(done: Round) -> Coverage:
    assert done.on_log is not None
    live, candidate = (THUMB_FLOOR + THUMB_SLOPE * value for value in (done.live_value, done.candidate_value))
    truth = {"live": live, "candidate": candidate, "difference": candidate - live}
    compared = done.on_log.doubly_robust
    held = holds(compared, truth)
    covers, error = ({quantity: found[i] for quantity, found in held.items()} for i in (0, 1))
    return Coverage(compared.can_decide, covers, error, compared.high - compared.low)


def promoting_run(
    world: World, stage: Stage, settings: Settings, absent: Sequence[str], t: int, noise: float, seed: Sequence[int]
) -> GateTrial | None:
    """A loop over t decisions, until it promotes. With `noise`, what it learns is spoiled by as much, the same in every
    round. None where no candidate decided otherwise than the live router."""
    rng = np.random.default_rng(seed)
    dealt = redealt(world, rng)
    moment = moment_of(dealt, absent=absent)
    arm = Retraining(dealt, stage, settings, rng, moment.experts)
    arm.noise = noise * rng.standard_normal(arm.evidence.quality.shape) if noise else None
    for _ in range(t // BLOCK):
        arm.serve(moment, BLOCK)
        if arm.rounds and arm.rounds[-1].is_promoted:
            break
    judged = [each for each in arm.rounds if each.gate is not None]
    if not judged:
        return None
    last = judged[-1]
    return GateTrial(last.gain, last.is_promoted, last.decisions, min(each.gain for each in judged))


@dataclass(frozen=True)
class Phase:
    """A stretch of the scenario: `blocks` of 500 decisions at one moment of the world."""

    name: str
    moment: Moment
    blocks: int


def scenario(world: World, degraded: str, factor: float, absent: Sequence[str], blocks: int) -> list[Phase]:
    """Steady, then an expert degrades."""
    return [
        Phase("steady", moment_of(world, absent=absent), blocks),
        Phase(f"{degraded} degrades", moment_of(world, absent=absent, factors={degraded: factor}), blocks),
    ]


@dataclass(frozen=True)
class Course:
    """One run of the scenario.

    `served` (arm -> (blocks,)) mean true score of the answers, `value` that of the router in force at the end of each
    block, `start` (arm, phase) -> the same when a phase begins, `reachable` (blocks,) what a map could come to;
    `rounds` of retraining.
    """

    served: Mapping[str, Float64Array]
    value: Mapping[str, Float64Array]
    start: Mapping[tuple[str, str], float]
    reachable: Float64Array
    rounds: tuple[Round, ...]
    phases: tuple[str, ...]


def scenario_run(world: World, stage: Stage, settings: Settings, phases: Sequence[Phase], seed: int) -> Course:
    """All arms over the same scenario, each with its own draws."""
    experts = phases[0].moment.experts

    def rng(number: int) -> np.random.Generator:
        return np.random.default_rng([seed, number])

    loop = Retraining(world, stage, settings, rng(0), experts)
    rows, probes = loop.rows, world.probes
    arms: dict[str, Retraining | Averaging | BetaBandit | Told] = {
        "coe retrain": loop,
        "no retraining": Retraining(world, stage, settings, rng(1), experts, is_learning=False),
        "averaging the log": Averaging(world, rows, probes, rng(2), experts),
        "Beta bandit": BetaBandit(world, rows, probes, rng(3)),
        "told": Told(world, stage, settings, rng(4), experts),
    }
    served: dict[str, list[float]] = {name: [] for name in arms}
    value: dict[str, list[float]] = {name: [] for name in arms}
    start: dict[tuple[str, str], float] = {}
    reachable: list[float] = []
    names: list[str] = []
    for phase in phases:
        best = reachable_value(phase.moment, rows, world)
        start |= {(name, phase.name): arm.value(phase.moment) for name, arm in arms.items()}
        for _ in range(phase.blocks):
            for name, arm in arms.items():
                served[name].append(arm.serve(phase.moment, BLOCK))
                value[name].append(arm.value(phase.moment))
            reachable.append(best)
            names.append(phase.name)
    return Course(
        {name: np.array(each) for name, each in served.items()},
        {name: np.array(each) for name, each in value.items()},
        start,
        np.array(reachable),
        tuple(loop.rounds),
        tuple(names),
    )


def recovery_decisions(course: Course, arm: str, phase: str, share: float) -> float:
    """Decisions after the start of a phase until the router in force has made good a share of what it lacks of what a
    map can reach; infinite when it never did within the phase."""
    inside = [i for i, name in enumerate(course.phases) if name == phase]
    before = course.start[arm, phase]
    wanted = before + share * (course.reachable[inside[0]] - before)
    for n, i in enumerate(inside, start=1):
        if course.value[arm][i] >= wanted:
            return float(n * BLOCK)
    return float("inf")
