"""Published scores: the shipped table, names of models, and what they add to grades."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.fleet.router_registry import Registry
from coe.router.build import load_router
from coe.router.config.composition import load_config
from coe.router.types import Query
from coe.training.expert_map import ASSUMED_OUTPUT, measure_quality, shrink
from coe.training.published_scores import (
    WEIGHT,
    Source,
    model_name,
    model_qualities,
    published_qualities,
    read_sources,
)
from coe.training.types import no_outcomes
from tests.training.test_train_command import said, train
from tests.training.trained_folder import CONFIG, make_trained, outcome_table

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("source", read_sources(), ids=lambda source: source.source)
def test_each_shipped_row_has_a_score_for_each_benchmark_and_a_source(source: Source) -> None:
    assert source.url.startswith("https://")
    assert {len(scores) for scores in source.scores.values()} == {len(source.benchmarks)}
    assert all(score is None or 0 <= score <= 100 for scores in source.scores.values() for score in scores)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("openai/gpt-4o", ("gpt4o", "")),
        ("azure/gpt-4o-2024-08-06", ("gpt4o", "20240806")),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", ("llama318b", "")),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", ("qwen257b", "")),
        ("google/gemma-2-9b-it", ("gemma29b", "")),
        ("bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0", ("claude35sonnet", "20240620")),
        ("deepseek/deepseek-v3-0324", ("deepseekv30324", "")),
        ("team/llama-3.1-8b-instruct-sql", ("llama318bsql", "")),
    ],
)
def test_model_name_ignores_provider_spelling_and_tuning(model: str, name: tuple[str, str]) -> None:
    assert model_name(model) == name


def test_a_snapshot_never_has_the_scores_of_another_one() -> None:
    old, new, plain, other = published_qualities(
        ["gpt-4o-2024-05-13", "gpt-4o-2024-11-20", "gpt-4.1-mini-2025-04-14", "claude-3-5-sonnet-20230101"]
    )
    assert old != new
    assert not math.isnan(plain)
    assert math.isnan(other)
    assert published_qualities(["gpt-4o"]) == (new,)
    assert all(map(math.isnan, published_qualities(["", "nobody/knows-this", "team/llama-3.1-8b-instruct-sql"])))


def test_models_of_two_sources_are_compared_through_the_one_that_both_have() -> None:
    hard = Source(source="a", url="https://a", benchmarks=("x", "y"), scores={"good": (40, 30), "fair": (20, 10)})
    easy = Source(source="b", url="https://b", benchmarks=("x", "y"), scores={"fair": (90, 80), "poor": (70, None)})
    found, level = model_qualities((hard, easy))
    good, fair, poor = (found[name, ""] for name in ("good", "fair", "poor"))
    assert good > fair > poor
    # Two scores and a ridge of one: the difference of 0.2 is shrunk, and never turned around.
    assert 0.1 < good - fair < 0.2
    assert level == pytest.approx(np.mean([0.2, 0.3, 0.8, 0.7]), abs=0.15)


def test_a_published_quality_counts_as_one_more_cell_of_its_weight() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((3, 20, 2)) < np.array([0.3, 0.7])[:, None].T[None]
    sums, squares, counts = scores.sum(axis=1) * 1.0, scores.sum(axis=1) * 1.0, np.full((3, 2), 20.0)
    prior = np.array([0.6, 0.5])
    quality, stderr = shrink(sums, squares, counts, prior)
    means, overall = sums / counts, sums.sum(axis=0) / counts.sum(axis=0)
    within = np.maximum((squares - counts * means**2).sum(axis=0) / 57, 1e-4)
    spread = (counts * (means - overall) ** 2).sum(axis=0) - 2 * within
    common = np.clip(within / np.maximum(spread / 40, 1e-9), 1, 200)
    share, own = 20 / (20 + common), WEIGHT / (WEIGHT + common)
    centred = prior - prior.mean() + overall.mean()
    expected = (share * means.sum(axis=0) + own * centred) / (3 * share + own)
    assert quality == pytest.approx(share * means + (1 - share) * expected)
    alone, alone_error = shrink(sums, squares, counts)
    assert (stderr < alone_error).all()
    assert quality.mean(axis=0)[0] > alone.mean(axis=0)[0]


def test_unknown_models_change_nothing() -> None:
    table = outcome_table([("facts", i) for i in range(9)], ("left", "right"), np.random.default_rng(1).random((9, 2)))
    plain, same = (measure_quality(table, ("facts",), prior) for prior in ((), (math.nan, math.nan)))
    assert np.array_equal(plain.quality, same.quality)
    assert np.array_equal(plain.stderr, same.stderr)


def test_without_a_grade_the_better_published_model_leads_everywhere() -> None:
    found = measure_quality(no_outcomes(("a", "b", "c"), source="test"), ("facts", "sql"), (0.5, 0.7, math.nan))
    assert found.quality == pytest.approx(np.array([[0.5, 0.7, 0.0]] * 3))
    assert found.stderr == pytest.approx(np.array([[0.25, 0.25, 0.5]] * 2 + [[0.0625, 0.0625, 0.5]]))
    assert not found.count.any()
    assert (found.output_tokens == ASSUMED_OUTPUT).all()


def test_train_uses_published_scores_until_somebody_is_graded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_trained(tmp_path)
    models = {"left": "gpt-4o-mini", "right": "gpt-4o"}
    entries = {name: {"engine": "echo", "model": model, "price": {"input": 2}} for name, model in models.items()}
    config = folder / "experts.yaml"
    config.write_text(yaml.dump({**CONFIG, "experts": {**entries, "unheard": {"engine": "echo", "model": "of"}}}))
    shutil.rmtree(folder / "data" / "outcomes")
    registry = Registry(folder / "data" / "routers")
    assert train(folder) == 0, capsys.readouterr().err
    text = said(capsys)
    assert "no expert is graded yet, so published scores make the map (OpenAI simple-evals, " in text
    assert "right 0.59 at 0.00020 USD" in text
    assert "Without published scores, and not on the map: unheard" in text
    router = load_router(load_config(config), registry.folder(registry.live().version))
    decided = router.decide(Query("d", "Which river flows through Cairo?"), rng=np.random.default_rng(0))
    assert (decided.expert, router.experts) == ("right", ("left", "right"))
