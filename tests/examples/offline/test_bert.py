"""MiniLM's network; tests/retrieval/experts/test_trained.py compares it with torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from coe.base.errors import ConfigError
from coe_offline import bert
from tests.retrieval.experts.bert_files import load_bert, write_bert

TEXT = "what is the dose of drug"


def write_pooling(folder: Path, **settings: object) -> None:
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))


def test_a_text_is_the_mean_of_its_tokens_or_the_first_as_the_model_says(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    mean = load_bert(folder)
    ids = np.array([mean.tokenizer.encode(TEXT).ids])
    states = mean.session.run(None, {"input_ids": ids})[0][0]
    for settings, vector in (
        ({}, states.mean(axis=0)),
        ({"pooling_mode": "mean"}, states.mean(axis=0)),
        ({"pooling_mode": "cls"}, states[0]),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, states[0]),
    ):
        if settings:
            write_pooling(folder, **settings)
        found = load_bert(folder).encode(["law", TEXT, " "])
        np.testing.assert_allclose(found[1], vector / np.linalg.norm(vector), atol=1e-6)
        assert not found[2].any()


def test_names_of_a_whole_model_begin_with_its_kind(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    before = load_bert(folder).encode([TEXT])
    arrays = load_file(folder / "model.safetensors")
    save_file({f"bert.{name}": array for name, array in arrays.items()}, folder / "model.safetensors")
    np.testing.assert_array_equal(load_bert(folder).encode([TEXT]), before)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    folder = write_bert(tmp_path / "model")
    with pytest.raises(ConfigError, match="max_tokens 128 is more than its 64 positions"):
        load_bert(folder, 128)
    write_pooling(folder, pooling_mode_max_tokens=True)
    with pytest.raises(ConfigError, match=r"pooling 'pooling_mode_max_tokens' in .*allowed: mean, cls"):
        load_bert(folder)
    for number, config in enumerate(({"model_type": "mpnet"}, {"hidden_act": "relu"}, {"num_hidden_layers": 3})):
        with pytest.raises(ConfigError, match="does not hold a BERT with gelu in float32"):
            load_bert(write_bert(tmp_path / str(number), **config))
    for broken in (b"", b"{}", (1 << 40).to_bytes(8, "little") + b"{}"):
        (tmp_path / "model" / "model.safetensors").write_bytes(broken)
        (tmp_path / "model" / "1_Pooling" / "config.json").unlink(missing_ok=True)
        with pytest.raises(ConfigError, match="does not hold a BERT"):
            load_bert(folder)


def test_the_vectors_of_a_link_are_those_of_the_file(tmp_path: Path) -> None:
    """As in the cache of a model hub."""
    folder = write_bert(tmp_path / "model")
    before = load_bert(folder).encode([TEXT])
    (folder / "model.safetensors").rename(tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    np.testing.assert_array_equal(load_bert(folder).encode([TEXT]), before)


def test_the_shipped_model_knows_what_is_alike() -> None:
    same, other, far = bert.build(bert.Options()).encode(["a dog barks", "the puppy is barking", "tax law of 1987"])
    assert same @ other > 0.6 > 0.3 > same @ far
