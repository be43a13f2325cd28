"""The learning loop on a small synthetic fleet whose truth is known: the same code as benchmarks/learning_loop.py."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmarks.loop_arms import Retraining
from benchmarks.loop_experiments import covering_run, promoting_run
from benchmarks.loop_fleet import (
    World,
    build_world,
    draw_experts,
    moment_of,
    reachable_value,
)
from benchmarks.loop_judge import Opinions
from benchmarks.loop_newcomers import Newcomer, Place, imitated, joining_run, known_to
from benchmarks.loop_page import share_with_interval
from benchmarks.loop_stage import Settings, fit_stage
from coe.router.build import build_encoder
from coe.router.section import PluginConfig
from coe.training.types import OutcomeTable
from tests.outcome_tables import scored_table

SETTINGS = 0.05


def synthetic_table(rng: np.random.Generator, *, per_category: int = 120) -> OutcomeTable:
    """Four kinds of questions and five experts: each of four is good at one kind, the fifth is middling at all."""
    words = {"maths": "sum number", "code": "python function", "law": "court contract", "cooking": "oven recipe"}
    texts = [f"{words[name]} question {i} about {name}" for name in words for i in range(per_category)]
    categories = [name for name in words for _ in range(per_category)]
    rates = np.full((4, 5), 0.35)
    rates[np.arange(4), np.arange(4)] = 0.85
    rates[:, 4] = 0.6
    rows = np.repeat(np.arange(4), per_category)
    scores = (rng.random((len(rows), 5)) < rates[rows]).astype(np.float32)
    experts = ("of-maths", "of-code", "of-law", "of-cooking", "middling")
    return scored_table(scores, categories, experts, texts=tuple(texts))


@dataclass(frozen=True)
class Setting:
    world: World
    settings: Settings


@pytest.fixture(scope="module")
def bench():
    rng = np.random.default_rng(1)
    encoder = build_encoder(PluginConfig(kind="hashing"))
    return Setting(build_world(synthetic_table(rng), encoder, rng), Settings(retrain_every=1500, exploration=SETTINGS))


@pytest.fixture(scope="module")
def stage(bench):
    return fit_stage(bench.world, PluginConfig(kind="hashing"), np.random.default_rng(0))


def test_intervals_hold_the_truth(bench, stage):
    runs = [covering_run(bench.world, stage, bench.settings, (), 6000, 0.2, (2, run)) for run in range(12)]
    found = [run for run in runs if run is not None]
    covered = [run.covers[q] for run in found for q in ("live", "candidate", "difference")]
    assert len(covered) >= 15
    assert np.mean(covered) > 0.85
    assert any(run.is_conclusive for run in found)


def test_the_gate_refuses_what_is_worse(bench, stage):
    runs = [promoting_run(bench.world, stage, bench.settings, (), 6000, 0.4, (2, run)) for run in range(8)]
    worse = [trial for trial in runs if trial is not None and trial.gain < -0.02]
    assert len(worse) > 2
    assert not any(trial.is_promoted for trial in worse)


def test_the_loop_recovers_from_a_degraded_expert(bench, stage):
    steady = moment_of(bench.world)
    degraded = moment_of(bench.world, factors={"of-maths": 0.1})
    loop = Retraining(bench.world, stage, bench.settings, np.random.default_rng(3), steady.experts)
    for _ in range(4):
        loop.serve(steady, 1500)
    before = loop.value(degraded)
    reachable = reachable_value(degraded, loop.rows, bench.world)
    assert reachable - before > 0.05
    for _ in range(6):
        loop.serve(degraded, 1500)
    assert (loop.value(degraded) - before) / (reachable - before) > 0.7


def test_an_added_expert_is_explored_and_then_serves(bench, stage):
    absent = moment_of(bench.world, absent=("of-law",))
    settings = replace(bench.settings, retrain_every=500)
    loop = Retraining(bench.world, stage, settings, np.random.default_rng(4), absent.experts)
    loop.serve(absent, 500)
    assert "of-law" not in loop.router.experts
    full = moment_of(bench.world)
    for _ in range(6):
        loop.serve(full, 500)
    assert loop.router.expert_of()["law"] == "of-law"


def test_a_category_that_somebody_adds_is_told_apart_and_served_by_its_best():
    rng, kind = np.random.default_rng(6), PluginConfig(kind="hashing")
    world = build_world(synthetic_table(rng), build_encoder(kind), rng, newcomer="law")
    stages = tuple(fit_stage(each, kind, rng) for each in (world, known_to(world)))
    settings = Settings(retrain_every=500, exploration=SETTINGS)
    run = joining_run(Place(Newcomer("synthetic", "law"), world, stages), settings, "coe retrain", 4, (7,))
    assert run.worth > 0.3
    assert run.decisions(0.5) <= 2000


@pytest.mark.parametrize(("right", "gain"), [(1.0, 0.8), (0.5, 0.0)])
def test_a_simulated_judge_names_the_better_answer_as_often_as_it_should(right, gain):
    judge, rng = Opinions(share=1.0, right=right), np.random.default_rng(0)
    better, worse = np.ones(4000), np.zeros(4000)
    said = judge.verdicts(better, worse, rng) - judge.verdicts(worse, better, rng)
    assert said.mean() == pytest.approx(gain, abs=0.04)
    alike = judge.verdicts(worse, worse, rng)
    assert (alike == 0.5).mean() == pytest.approx(judge.tied_alike, abs=0.04)
    assert alike.mean() == pytest.approx(0.5, abs=0.04)


def test_a_simulated_judge_compares_an_expert_until_it_knows_enough(bench, stage, monkeypatch):
    monkeypatch.setattr("benchmarks.loop_judge.ENOUGH", 20)
    settings = replace(bench.settings, judge=Opinions(share=1.0, right=1.0))
    moment = moment_of(bench.world)
    arm = Retraining(bench.world, stage, settings, np.random.default_rng(2), moment.experts)
    for _ in range(2):
        arm.serve(moment, 1500)
    log, _ = arm.log()
    assert log.judged is not None
    assert len(log.judged) == 2 * arm.n_judged(2)
    assert 40 < arm.n_judged(2) <= 20 * len(arm.compared)
    prompts = arm.history.columns()["prompt"][log.judged.at.astype(int)].astype(int)
    scores = moment.quality[prompts, log.judged.expert].reshape(-1, 2)
    said = log.judged.reward.reshape(-1, 2)
    differs = (scores[:, 0] != scores[:, 1]) & (said[:, 0] != 0.5)
    assert (scores.argmax(axis=1) == said.argmax(axis=1))[differs].all()


def test_an_imitation_is_as_good_as_who_serves_in_every_category(bench):
    serves = dict.fromkeys(bench.world.categories, "middling")
    traffic = imitated(bench.world, serves, "of-law", np.random.default_rng(8)).traffic
    column, serving = (traffic.scores[:, traffic.experts.index(name)] for name in ("of-law", "middling"))
    assert (column != serving).any()
    for category in bench.world.categories:
        inside = np.array(traffic.categories) == category
        assert column[inside].mean() == pytest.approx(serving[inside].mean())


def test_draws_follow_the_policy():
    policy = np.array([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    drawn = draw_experts(policy, np.repeat([0, 1], 4000), np.random.default_rng(5))
    assert np.bincount(drawn[:4000], minlength=3) / 4000 == pytest.approx(policy[0], abs=0.03)
    assert (drawn[4000:] == 2).all()


def test_a_share_has_its_exact_interval():
    assert share_with_interval(0, 20) == "0.0% [0.0, 16.8] of 20"  # the rule of three gives 15; exact is 16.8
    assert share_with_interval(0, 0) == "none"
