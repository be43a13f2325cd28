"""`coe retrieval pilots` on small collections with the packaged base and BM25."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coe.base.errors import DataError
from coe.retrieval.routing.pilot_library import load_library
from coe.retrieval.training.collection import read_collection
from coe.retrieval.training.held_out import held_out_queries
from coe.retrieval.training.labels import query_key
from coe.retrieval.training.train_commands import pilots
from tests.retrieval.experts.bert_files import load_bert, write_bert, write_trained
from tests.retrieval.training.collection_files import write_beir


def make(out: Path, **options: object) -> None:
    defaults: dict[str, object] = {
        "config": Path("experts.yaml"),
        "rebuild": False,
    }
    pilots(out=out, **(defaults | options))


def write_config(folder: Path, experts: str, encoder: str = "{kind: bert}") -> Path:
    text = (Path(__file__).parents[3] / "experts.yaml").read_text().split("\nretrieval:")[0]
    file = folder / "experts.yaml"
    file.write_text(f"{text}\nretrieval:\n  encoder: {encoder}\n  experts:\n    {experts}\n")
    return file


def test_a_library_is_made_and_extended(tmp_path: Path) -> None:
    north, south = write_beir(tmp_path / "north", "n"), write_beir(tmp_path / "south", "s")
    config = write_config(tmp_path, "words: {kind: bm25}")
    make(tmp_path / "pilots", data=north, config=config)
    first = load_library(tmp_path / "pilots")
    assert [arm.name for arm in first.arms][:2] == ["base", "words"]
    assert first.manifest.data_sets == ("north",)

    config = write_config(tmp_path, "words: {kind: bm25}\n    whole: {kind: bm25, language: none}")
    make(tmp_path / "pilots", data=south, config=config)
    second = load_library(tmp_path / "pilots")
    assert second.manifest.data_sets == ("north", "south")
    count = len(first.keys)
    assert (second.scores[:count, : len(first.arms)] == first.scores).all()
    assert not second.measured[:count, len(first.arms)].any()


def test_a_changed_expert_needs_a_rebuild(tmp_path: Path) -> None:
    north = write_beir(tmp_path / "north", "n")
    make(tmp_path / "pilots", data=north, config=write_config(tmp_path, "words: {kind: bm25}"))
    config = write_config(tmp_path, "words: {kind: bm25, k1: 0.5}")
    with pytest.raises(DataError, match="'words' is not the one that the pilot library measured; use --rebuild"):
        make(tmp_path / "pilots", data=north, config=config)
    make(tmp_path / "pilots", data=north, config=config, rebuild=True)
    assert load_library(tmp_path / "pilots").manifest.expert_fingerprints.keys() == {"base", "words"}


def test_trained_experts_are_labelled_on_the_queries_that_none_of_them_saw(tmp_path: Path) -> None:
    north = write_beir(tmp_path / "north", "n")
    model = write_bert(tmp_path / "model")
    base = load_bert(model)
    write_trained(tmp_path / "trained", base)
    encoder = f"{{kind: bert, model: '{model}', max_tokens: 32}}"
    config = write_config(tmp_path, "north: {kind: trained, path: trained}", encoder)
    make(tmp_path / "pilots", data=north, config=config)
    library = load_library(tmp_path / "pilots")
    assert "north" in library.manifest.expert_fingerprints
    unseen = held_out_queries(read_collection(north).split("train"))
    assert 0 < len(unseen) < 8
    assert set(library.keys) == {query_key("north", name) for name in unseen.ids}
    assert len(library.located) == 8 - len(unseen)  # the others say where the collection lies
    vectors = base.encode([text for text in read_collection(north).split("train").texts if text not in unseen.texts])
    np.testing.assert_allclose(np.sort(library.located, axis=0), np.sort(vectors, axis=0), atol=1e-6)
