"""Training for real, on a tiny BERT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from coe.base.errors import ConfigError, DataError
from coe.retrieval.experts import trained
from coe.retrieval.training import query_model
from coe.retrieval.training.collection import Collection, Queries
from coe.retrieval.training.query_model import Corpus, Look, prepare, train_queries
from coe.retrieval.training.train_commands import train
from coe.router.encoders.onnx import OnnxEncoder
from tests.retrieval.experts.bert_files import WORDS, load_bert, write_bert
from tests.retrieval.training.collection_files import write_beir

ROOT = Path(__file__).parents[3]


def collection() -> Collection:
    """Each query is a pair of words; its document is one word, decided by the query's first. Dev queries are train
    queries: so tiny a network shows what it learned by those alone."""
    words = WORDS[4:]
    pairs = [(i, j) for i in range(len(words)) for j in range(len(words))]
    texts = tuple(f"{words[i]} of {words[j]}" for i, j in pairs)
    every = Queries(
        tuple(f"q{i}" for i in range(len(pairs))), texts, tuple({(i + 3) % len(words): 1} for i, _ in pairs)
    )
    return Collection("words", tuple(f"d{word}" for word in words), words, {"train": every, "dev": every})


@pytest.fixture
def base(tmp_path: Path) -> OnnxEncoder:
    return load_bert(write_bert(tmp_path / "model"))


def fitted(base: OnnxEncoder, tmp_path: Path, name: str = "out") -> tuple[Corpus, list[Look], float, float]:
    corpus, looks = prepare(collection(), base.encode(collection().documents)), list[Look]()
    found = train_queries(corpus, tmp_path / "model", tmp_path / name, seed=0, on_look=looks.append)
    return corpus, looks, *found


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_a_model_learns_and_is_served_without_torch(
    tmp_path: Path, base: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("LEARNING_RATE", 0.003),
        ("BATCH", 8),
        ("MOST_STEPS", 80),
        ("LOOK_EVERY", 20),
        ("EPOCHS", 100),
    ):
        monkeypatch.setattr(query_model, name, value)
    corpus, looks, best, plain = fitted(base, tmp_path)
    assert [look.step for look in looks] == [20, 40, 60, 80]
    assert best > plain + 0.02
    served = load_bert(tmp_path / "out")
    assert corpus.dev_score(served.encode(corpus.dev.texts)) == pytest.approx(best, abs=1e-6)
    assert corpus.dev_score(base.encode(corpus.dev.texts)) == pytest.approx(plain, abs=1e-6)
    fitted(base, tmp_path, "again")
    again = load_bert(tmp_path / "again")
    np.testing.assert_array_equal(served.encode(corpus.dev.texts), again.encode(corpus.dev.texts))


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_what_never_helps_leaves_the_base_and_stops(
    tmp_path: Path, base: OnnxEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("LEARNING_RATE", 1e-12), ("LOOK_EVERY", 5), ("PATIENCE", 2), ("EPOCHS", 100)):
        monkeypatch.setattr(query_model, name, value)
    corpus, looks, best, plain = fitted(base, tmp_path)
    assert [look.step for look in looks] == [5, 10]
    assert best == plain
    texts = corpus.dev.texts
    np.testing.assert_allclose(load_bert(tmp_path / "out").encode(texts), base.encode(texts), atol=1e-6)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_the_command_writes_an_expert_of_the_base_in_experts_yaml(tmp_path: Path, base: OnnxEncoder) -> None:
    values = yaml.safe_load((ROOT / "experts.yaml").read_text())
    values["retrieval"] = {"encoder": {"kind": "bert", "model": str(tmp_path / "model"), "max_tokens": 32}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    data = write_beir(tmp_path / "north", "n")
    train("north", data=data, out=tmp_path / "trained", config=tmp_path / "experts.yaml")
    expert = trained.build(trained.Options(path=str(tmp_path / "trained")))("north", base)
    assert expert.encode_queries(["law"]).shape == (1, base.dim)

    values["retrieval"] = {"encoder": {"kind": "hashing"}}
    (tmp_path / "experts.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="kind 'hashing' cannot be trained; allowed: bert, sentence_transformer"):
        train("north", data=data, out=tmp_path / "trained", config=tmp_path / "experts.yaml")


def test_a_collection_without_queries_to_train_on_or_to_look_at_is_named(base: OnnxEncoder) -> None:
    full = collection().splits
    for splits, message in (
        ({"dev": full["dev"]}, "has 0 of 0, and 64"),
        ({"train": full["train"]}, r"has \d+ of 64, and 0"),
    ):
        lacking = Collection("silent", collection().document_ids, collection().documents, splits)
        with pytest.raises(DataError, match=f"silent: needs train queries.*{message}"):
            prepare(lacking, base.encode(lacking.documents))
