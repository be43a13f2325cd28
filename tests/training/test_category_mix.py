"""The traffic's mix of categories: reference values, properties, and what stage 1 does with it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coe.base.shipped import seed_folder
from coe.cli.progress import silent
from coe.decision_log.database import Database
from coe.decision_log.decision_record import DecisionInputs
from coe.fleet.router_registry import Registry
from coe.router.build import configured_router, load_router
from coe.router.config.composition import load_config
from coe.router.config.feedback import FeedbackConfig
from coe.router.model_files.artifact import RouterArtifact, load_artifact
from coe.router.reading.features import to_bytes
from coe.router.reading.uncertainty import apply_mix, risk_threshold
from coe.router.types import QueryFacts
from coe.training.category_mix import (
    MIN_SHARE,
    MIX_MOVED,
    asked_queries,
    estimate_mix,
    fit_shares,
    prior_ratio,
    read_asked,
    reweight,
    total_variation,
)
from coe.training.fit_inputs import RetrainRequest, labelled_queries, read_inputs
from coe.training.stage_check import fit_stage, with_stage
from tests.training.log_records import record
from tests.training.trained_folder import make_trained

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HALVES = np.array([0.5, 0.5])


@pytest.mark.parametrize(("likely_first", "share"), [(0.5, 0.5), (0.68, 0.8), (0.8, 1.0), (0.2, 0.0)])
def test_em_finds_the_shares_that_a_confusion_of_one_in_five_explains(likely_first: float, share: float) -> None:
    """A share a looks like the first category: 0.8 of what is of it and 0.2 of the rest, so q = (a - 0.2) / 0.6."""
    probs = np.array([[0.8, 0.2], [0.2, 0.8]], np.float32)
    found = fit_shares(probs, HALVES, np.array([likely_first, 1 - likely_first]), HALVES)
    assert found[0] == pytest.approx(share, abs=0.01)


@settings(max_examples=30)
@given(st.integers(2, 5), st.integers(0, 10_000))
def test_em_recovers_any_mix_of_what_stage_1_can_tell_apart(k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    look = 0.3 / k + 0.7 * np.eye(k)  # p(looks like j | category i)
    source, true = rng.dirichlet([4.0] * k), rng.dirichlet([2.0] * k)
    joint = source[:, None] * look
    probs = (joint / joint.sum(axis=0)).T
    found = fit_shares(probs, source, true @ look, source)
    assert found.sum() == pytest.approx(1)
    assert total_variation(found, true) < 0.01


def drawn(shares: list[float], n: int, rng: np.random.Generator) -> np.ndarray:
    """Probabilities (n, k), right for an even mix, of queries of another: x is normal about its category's unit vector
    with variance 0.5, so p(x | y) is in proportion to exp(2 x_y)."""
    k = len(shares)
    x = np.eye(k)[rng.choice(k, n, p=shares)] + np.sqrt(0.5) * rng.standard_normal((n, k))
    odds = np.exp(2 * x)
    return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("shares", [[0.7, 0.2, 0.1], [0.34, 0.33, 0.33]])
def test_the_interval_of_the_distance_holds_the_truth_and_0_where_nothing_moved(shares: list[float]) -> None:
    true = float(total_variation(np.array(shares), np.full(3, 1 / 3)))
    counts, hits, n_moved = np.full((2, 3), 500), 0, 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        mix = estimate_mix(drawn(shares, 400, rng), np.arange(400), np.ones(400), counts, rng)
        hits += mix.moved.interval.low <= true <= mix.moved.interval.high
        n_moved += mix.ratio is not None
        assert (mix.ratio is None) == (mix.moved.interval.low == 0)
    assert hits >= 8
    assert n_moved == 10 if true > 0.1 else n_moved <= 2


def test_what_one_key_asks_again_and_again_moves_nothing() -> None:
    rng = np.random.default_rng(1)
    probs, counts = (
        np.concatenate([drawn([1 / 3] * 3, 300, rng), drawn([1.0, 0.0, 0.0], 300, rng)]),
        np.full((2, 3), 500),
    )
    ratios = []
    for asker in ("key-999", "key-{}"):
        records = [
            record(i, key_id=(asker if i >= 300 else "key-{}").format(i), embedding=bytes(4)) for i in range(600)
        ]
        asked = asked_queries(records, 2, FeedbackConfig())
        mix = estimate_mix(probs, asked.cluster, asked.weight, counts, np.random.default_rng(0))
        ratios.append(mix.ratio)
    assert ratios[0] is None
    assert ratios[1] is not None


def test_a_category_that_nobody_asks_keeps_a_tenth_of_its_share() -> None:
    ratio = prior_ratio(np.array([1.0, 0.0]), HALVES)
    assert ratio[1] == pytest.approx(MIN_SHARE, rel=0.06)
    assert ratio @ HALVES == pytest.approx(1)
    few = estimate_mix(
        np.full((50, 2), 0.5, np.float32), np.arange(50), np.ones(50), np.full((2, 2), 9), np.random.default_rng(0)
    )
    assert few is None


def test_a_mix_that_has_not_moved_changes_no_probability_and_no_doubt() -> None:
    rng = np.random.default_rng(2)
    probs, labels = drawn([1 / 3] * 3, 90, rng), np.arange(90) % 4
    state = {"held_out_scores": rng.random(97, dtype=np.float32), "weight": np.zeros(1, np.float32)}  # 7 of no query
    shifted, found = reweight(probs, labels, state, np.ones(3, np.float32))
    np.testing.assert_allclose(shifted, probs, rtol=1e-5)
    np.testing.assert_allclose(found["held_out_scores"], state["held_out_scores"][:90], atol=1e-5)
    np.testing.assert_array_equal(found["held_out_weight"], 1)
    order = np.argsort(labels == 3, kind="stable")
    np.testing.assert_array_equal(found["held_out_correct"], (probs.argmax(axis=1) == labels)[order])


def test_the_promise_holds_under_another_mix_on_average() -> None:
    """A category in five is asked five times as often, and stage 1 errs there three times as much."""
    shares, risks = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        uncertainty, rare = rng.random((2, 800), dtype=np.float32), rng.random((2, 800)) < [[0.2], [0.55]]
        wrong = rng.random((2, 800)) < 0.3 * uncertainty * np.where(rare, 1.5, 0.5)
        weight = np.where(rare[0], 0.55 / 0.2, 0.45 / 0.8).astype(np.float32)
        for kept, weights in ((shares, weight), (risks, None)):
            threshold = risk_threshold(uncertainty[0], ~wrong[0], 0.1, weights)
            accepted = uncertainty[1] <= threshold
            kept.append(wrong[1][accepted].mean() if accepted.any() else 0.0)
    assert np.mean(shares) <= 0.1 < np.mean(risks)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.floats(0.05, 0.9))
def test_equal_weights_are_none(rows: list[tuple[float, bool]], alpha: float) -> None:
    scores, right = np.array([row[0] for row in rows], np.float32), np.array([row[1] for row in rows])
    assert risk_threshold(scores, right, alpha, np.ones(len(rows), np.float32)) == risk_threshold(scores, right, alpha)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose log holds three hundred questions for SQL and thirty for facts, of as many users."""
    folder = make_trained(tmp_path_factory.mktemp("mix"))
    config, live = load_config(folder / "experts.yaml"), Registry(folder / "data" / "routers").live()
    router = load_router(config, folder / "data" / "routers" / live.version)
    texts = {
        name: [q.text for q in labelled_queries(config, seed_folder()) if q.category == name]
        for name in ("sql", "facts")
    }
    records = []
    for i in range(330):
        category = "facts" if i % 11 == 0 else "sql"
        asked = texts[category][i % len(texts[category])]
        made = DecisionInputs(encoder=router.encoder.fingerprint, features="", settings="", facts=QueryFacts())
        vector = to_bytes(router.encoder.encode([asked]))
        records.append(record(i, category, text=asked, key_id=f"key-{i}", embedding=vector, inputs=made))
    records.append(record(330, "facts", is_probe=True, embedding=vector, inputs=made))
    database = Database(f"sqlite:///{folder / 'data' / 'coe.db'}")
    database.write_decisions(records)
    database.close()
    return folder


def request_of(folder: Path) -> RetrainRequest:
    data = folder / "data"
    return RetrainRequest(folder / "experts.yaml", data / "routers", data / "outcomes", f"sqlite:///{data / 'coe.db'}")


def test_a_retrained_stage_1_expects_what_is_asked(trained: Path) -> None:
    request = request_of(trained)
    config, live = load_config(request.config), live_artifact(request)
    before = configured_router(config, live)
    inputs = read_inputs(request, config, live, before, now=NOW, progress=silent)
    evidence = inputs.evidence(live.manifest.categories)
    made = with_stage(live, fit_stage(inputs, evidence))
    moved = made.manifest.metrics[MIX_MOVED]
    assert moved.n == 330
    assert moved.interval.low > 0.2
    after = configured_router(config, made)
    assert before.mix is None
    assert dict(zip(after.categories, after.mix, strict=False))["sql"] > 1
    asked = read_asked(request.database_url, before.encoder, FeedbackConfig(), since=0.0).embeddings
    sql = before.categories.index("sql")
    old, new = (router.predict_categories(asked).probs for router in (before, after))
    np.testing.assert_allclose(new, apply_mix(old, after.mix), atol=0.05)
    assert new[:, sql].mean() > old[:, sql].mean()


def live_artifact(request: RetrainRequest) -> RouterArtifact:
    pointer = Registry(request.routers).live()
    return load_artifact(request.routers / pointer.version)
