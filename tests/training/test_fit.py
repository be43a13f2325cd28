"""Fitting a router end to end on the seed set, with an encoder that needs no weights."""

from datetime import UTC, datetime

import numpy as np
import pytest

from coe.base.errors import DataError
from coe.base.shipped import seed_folder
from coe.router.build import build_encoder
from coe.router.model_files.artifact import load_artifact
from coe.router.quality import QualityMatrix
from coe.router.reading.features import known_letters
from coe.router.section import PluginConfig
from coe.training.fit import fit_router, without_secrets
from coe.training.fit_inputs import ABOUT_MATERIAL, read_seed
from coe.training.stage_one import FitRequest, stratified_folds
from coe.training.types import split_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CATEGORIES = ("arithmetic", "sql", "translation")


def request(**changes) -> FitRequest:
    k, row = len(CATEGORIES), np.ones(len(CATEGORIES) + 1, np.float32)
    flat = np.full((k + 1, 1), 0.5, np.float32)
    values = {
        "encoder_config": PluginConfig(kind="hashing"),
        "classifier": PluginConfig(kind="logistic", inverse_l2=10.0),
        "scorer": PluginConfig(kind="map"),
        "categories": CATEGORIES,
        "experts": ("only",),
        "evidence": QualityMatrix(flat, flat, flat, row, row, flat, flat),
        "alpha": 0.1,
        "data_fingerprints": {},
    }
    return FitRequest(**(values | changes))


@pytest.fixture(scope="module")
def queries():
    return [query for query in read_seed(seed_folder()) if query.category in (*CATEGORIES, "general")]


def fit(root, asked, queries, seed=0):
    encoder = build_encoder(asked.encoder_config)
    return fit_router(root, asked, encoder, queries, now=NOW, rng=np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_router_and_it_learned_the_categories(tmp_path, queries):
    first, again = fit(tmp_path / "a", request(), queries), fit(tmp_path / "b", request(), queries)
    assert first.manifest.version == again.manifest.version
    artifact = load_artifact(tmp_path / "a" / first.manifest.version)
    assert artifact.part("letters")["known"].tolist() == known_letters(query.text for query in queries).tolist()
    metrics = artifact.manifest.metrics
    held_out = [q for q in queries if split_of(q.text) == "test" and q.category != "general"]
    assert metrics["category_accuracy"].n == len(held_out)
    assert metrics["category_accuracy"].interval.low > 0.5  # hashed words alone; a constant router has a third
    assert metrics["ece"].value < 0.15


def test_asks_that_mean_their_material_teach_only_what_reads_parts(tmp_path, queries):
    asked = read_seed(seed_folder() / ABOUT_MATERIAL)
    about = tuple(query for query in asked if query.category in CATEGORIES)
    plain, taught = fit(tmp_path / "a", request(), queries), fit(tmp_path / "b", request(about_material=about), queries)
    assert plain.part("part_classifier") == {}
    for name, array in plain.part("classifier").items():
        assert np.array_equal(taught.part("classifier")[name], array)
        assert not np.array_equal(taught.part("part_classifier")[name], array)


def test_without_holding_out_there_are_no_figures(tmp_path, queries):
    assert fit(tmp_path, request(is_holding_out=False), queries).manifest.metrics == {}


def test_without_graded_queries_the_map_decides_whatever_scorer_is_wanted(tmp_path, queries):
    made = fit(tmp_path, request(scorer=PluginConfig(kind="soft_map")), queries)
    assert (made.manifest.scorer.kind, made.part("scorer"), made.part("choice")) == ("map", {}, {})


def test_a_category_without_a_query_and_an_unknown_one_are_named(tmp_path, queries):
    with pytest.raises(DataError, match="no labelled query for category arithmetic"):
        fit(tmp_path, request(), [q for q in queries if q.category != "arithmetic"])
    with pytest.raises(DataError, match=r"unknown categories \['translation'\]"):
        fit(tmp_path, request(categories=CATEGORIES[:2]), queries)


def test_without_a_category_there_is_no_router(tmp_path):
    with pytest.raises(DataError, match="at least one category"):
        fit(tmp_path, request(categories=()), [])


def test_every_fold_leaves_every_category_in_the_rest():
    labels = np.repeat(np.arange(3), [5, 7, 11])
    folds = stratified_folds(labels, np.random.default_rng(0))
    for fold in range(5):
        assert set(labels[folds != fold]) == {0, 1, 2}


def test_a_key_never_reaches_the_manifest():
    options = {
        "url": "u",
        "api_key": "secret",
        "parts": [{"kind": "openai", "options": {"api_key": "secret", "dim": 3}}],
    }
    assert without_secrets(options) == {"url": "u", "parts": [{"kind": "openai", "options": {"dim": 3}}]}
