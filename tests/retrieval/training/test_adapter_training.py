"""Training for real, on a tiny BERT."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
from safetensors.numpy import load_file

from coe.base.errors import DataError
from coe.retrieval.experts import adapter
from coe.retrieval.training import lora
from coe.retrieval.training.adapter_training import Look, Run, prepare, train_adapter
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.recipe import Recipe
from coe.router.weights import resolve_weights
from coe_offline.bert import BertEncoder
from tests.retrieval.experts.adapter_files import WORDS, load_bert, write_bert

pytestmark = pytest.mark.filterwarnings("ignore")
CREATED = "2026-01-01T00:00:00+00:00"
RECIPE = Recipe(r=4, learning_rate=0.02, batch=8, epochs=40, max_steps=30, eval_every=10, held_out=0.25, patience=9)


def collection() -> Collection:
    """Each query is a pair of words; its document is another pair, decided by the query's first word."""
    words = WORDS[4:]
    documents = tuple(f"{word} {other}" for word in words for other in words)
    pairs = [(i, j) for i in range(len(words)) for j in range(len(words))]
    texts = tuple(f"{words[i]} of {words[j]}" for i, j in pairs)
    grades = tuple({((i + 3) % len(words)) * len(words) + j: 1} for i, j in pairs)
    rng = np.random.default_rng(0)
    order = [int(row) for row in rng.permutation(len(pairs))]
    every = Queries(tuple(f"q{i}" for i in range(len(pairs))), texts, grades)
    splits = {"train": every.take(order[:48]), "dev": every.take(order[48:])}
    return Collection("words", tuple(f"d{i:02}" for i in range(len(documents))), documents, splits)


@pytest.fixture
def base(tmp_path: Path) -> BertEncoder:
    return load_bert(write_bert(tmp_path / "model"))


def run(base: BertEncoder, out: Path, recipe: Recipe = RECIPE) -> list[Look]:
    looks: list[Look] = []
    corpora = prepare([collection()], [base.encode(collection().documents)], recipe)
    train_adapter("words", corpora, base, recipe, out, created_at=CREATED, on_look=looks.append)
    return looks


@pytest.mark.torch
@pytest.mark.parametrize("negatives", ["batch", "corpus"])
def test_an_adapter_learns_and_is_served_without_torch(tmp_path: Path, base: BertEncoder, negatives: str) -> None:
    recipe = RECIPE.model_copy(update={"negatives": negatives})
    looks = run(base, tmp_path / "out", recipe)
    manifest = adapter.read_manifest(tmp_path / "out")
    assert [look.step for look in looks] == [10, 20, 30]
    assert manifest.dev_ndcg > manifest.dev_ndcg_base + 0.05
    assert manifest.held_out + manifest.pairs == 48
    expert = adapter.build(adapter.Options(path=str(tmp_path / "out")))("words", base)
    assert np.abs(expert.encode_queries(["law of drug"]) - base.encode(["law of drug"])).max() > 0.01


@pytest.mark.torch
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, base: BertEncoder) -> None:
    for name in ("one", "other"):
        run(base, tmp_path / name)
    one, other = (adapter.read_manifest(tmp_path / name) for name in ("one", "other"))
    assert one.weights_sha256 == other.weights_sha256


@pytest.mark.torch
def test_training_stops_when_dev_gets_no_better(tmp_path: Path, base: BertEncoder) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate": 1e-9, "eval_every": 5, "patience": 2})
    assert [look.step for look in run(base, tmp_path / "out", recipe)] == [5, 10]


def test_the_best_look_and_share_of_the_adapter_is_kept() -> None:
    adapter_of_one = MagicMock(weights=lambda strength=1.0: {"b": np.float32(strength)})
    run = Run(adapter_of_one, 0.5, {"b": np.float32(0)})
    run.look({1.0: 0.4, 0.6: 0.5})
    assert (run.stale_looks, run.best_weights) == (1, {"b": 0.0})  # base is as good
    run.look({1.0: 0.4, 0.6: 0.7})
    run.look({1.0: 0.7, 0.6: 0.2})
    assert (run.best_score, run.stale_looks, run.best_weights) == (0.7, 1, {"b": np.float32(0.6)})


@pytest.mark.torch
def test_a_share_of_an_adapter_lies_between_base_and_the_whole(tmp_path: Path, base: BertEncoder) -> None:
    run(base, tmp_path / "out")
    whole = lora.QueryAdapter(resolve_weights(base.model), RECIPE, base.network.shape.pooling)
    arrays = load_file(tmp_path / "out" / adapter.WEIGHTS_FILE)
    whole.set_weights({name: arrays[name.replace(".default", "")] for name in whole.weights()})
    texts = ["law of drug", "code of law"]
    assert np.abs(whole.encode(texts, strength=0) - base.encode(texts)).max() < 1e-5
    part = whole.encode(texts, strength=0.5)
    assert np.abs(part - whole.encode(texts)).max() > 1e-3
    whole.set_weights(whole.weights(0.5))
    assert np.abs(part - whole.encode(texts)).max() < 1e-5


def test_a_collection_without_a_query_to_train_on_is_named(base: BertEncoder) -> None:
    empty = Collection("silent", ("a",), ("text",), {"train": Queries((), (), ())})
    with pytest.raises(DataError, match="silent: of 0 train queries none is left"):
        prepare([empty], [base.encode(["text"])], RECIPE)
    kept = prepare([empty, collection()], [base.encode(["text"]), base.encode(collection().documents)], RECIPE)
    assert [corpus.collection.name for corpus in kept] == ["words"]
