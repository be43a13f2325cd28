"""The learning loop on a small synthetic fleet whose truth is known: the same code as benchmarks/learning_loop.py."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmarks.loop_arms import Retraining
from benchmarks.loop_experiments import NULL_SPAN, drifting_run, nulled, paying_run
from benchmarks.loop_fleet import (
    Voices,
    World,
    build_world,
    draw_experts,
    moment_of,
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


def test_the_loop_serves_better_than_the_first_map_and_moves_to_it(bench, stage):
    """Eight grades of each category know little."""
    settings = replace(bench.settings, retrain_every=500, voices=Voices(down=1.0, up=1.0))
    world = replace(bench.world, per_category=4)
    found = [paying_run(world, stage, settings, 16, (2, run)) for run in range(4)]
    assert np.mean([run.served[-4:].mean() for run in found]) > 0.03
    gains = [gain for run in found for gain in run.moves]
    assert gains
    assert min(gains) > 0


def test_nothing_moves_where_nobody_is_better(bench, stage):
    settings = replace(bench.settings, retrain_every=500, voices=Voices(down=1.0, up=1.0))
    found = [paying_run(bench.world, stage, settings, 12, (2, run), is_null=True) for run in range(6)]
    assert [run.moves for run in found] == [()] * 6
    assert all(run.mapped == 0.0 for run in found)
    dealt, best = nulled(bench.world, np.random.default_rng(0))
    categories = np.array([*dealt.probes.categories, *dealt.traffic.categories])
    scores = np.concatenate([dealt.probes.scores, dealt.traffic.scores])
    for name in dealt.categories:
        means = scores[categories == name].mean(axis=0)
        others = np.delete(means[best] - means, best)
        assert (others >= -1 / 240).all()  # a target is rounded to whole prompts
        assert (others <= NULL_SPAN + 1 / 240).all()


def test_the_loop_recovers_from_a_degraded_expert(bench, stage):
    run = drifting_run(bench.world, stage, replace(bench.settings, retrain_every=500), ("of-maths", 0.1), (), 8, (3,))
    assert run.recovered[-1] > 0.6
    assert run.recovered[0] < run.recovered[-1]


def test_an_added_expert_is_explored_and_then_serves(bench, stage):
    absent = moment_of(bench.world, absent=("of-law",))
    settings = replace(bench.settings, retrain_every=500)
    loop = Retraining(bench.world, stage, settings, np.random.default_rng(4), absent.experts)
    loop.serve(absent, 500)
    assert "of-law" not in loop.router.experts
    full = moment_of(bench.world)
    for _ in range(8):
        loop.serve(full, 500)
    law, number = loop.router.categories.index("law"), full.experts.index("of-law")
    assert loop.tables[-1][law, number] >= 0.79


def test_a_category_that_somebody_adds_is_told_apart_and_served_by_its_best():
    rng, kind = np.random.default_rng(6), PluginConfig(kind="hashing")
    world = build_world(synthetic_table(rng), build_encoder(kind), rng, newcomer="law")
    stages = tuple(fit_stage(each, kind, rng) for each in (world, known_to(world)))
    settings = Settings(retrain_every=500, exploration=SETTINGS)
    settings = replace(settings, voices=Voices(down=1.0, up=1.0))
    run = joining_run(Place(Newcomer("synthetic", "law"), world, stages), settings, "coe retrain", 12, (7,))
    assert run.worth > 0.3
    assert run.decisions(0.5) <= 6000


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
    log = arm.log()
    assert log.judged is not None
    assert 40 < len(log.judged) / 2 <= 20 * len(arm.compared)
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
