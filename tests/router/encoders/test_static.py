"""The static encoder on tables made here: the formula, and model2vec's folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from coe.base.errors import ConfigError, MissingWeightsError
from coe.router.encoders.static import Options, build


def write_folder(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "red": 1, "green": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(arrays, folder / "model.safetensors")
    return folder


def test_the_vector_is_the_mean_over_known_tokens(tmp_path: Path) -> None:
    table = np.array([[9, 9], [3, 0], [0, 1]], np.float32)
    encoder = build(Options(weights=str(write_folder(tmp_path, {"embeddings": table}))))
    vectors = encoder.encode(["red", "red green", "unheard red", "unheard"])
    np.testing.assert_allclose(vectors, [[1, 0], [3 / 10**0.5, 1 / 10**0.5], [1, 0], [0, 0]], atol=1e-6)


def test_model2vec_shares_rows_and_weighs_tokens(tmp_path: Path) -> None:
    arrays = {
        "embeddings": np.array([[1, 0], [0, 1]], np.float16),
        "mapping": np.array([0, 1, 0]),
        "weights": np.array([1.0, 2.0, 1.0]),
    }
    encoder = build(Options(weights=str(write_folder(tmp_path, arrays))))
    np.testing.assert_allclose(encoder.encode(["red green"]), [[1 / 5**0.5, 2 / 5**0.5]], atol=1e-6)


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=r"model\.safetensors"):
        build(Options(weights=str(tmp_path)))
    two = {"a": np.zeros((2, 2), np.float32), "b": np.zeros((2, 2), np.float32)}
    with pytest.raises(ConfigError, match="holds 2 matrices; expected one"):
        build(Options(weights=str(write_folder(tmp_path, two))))
    (tmp_path / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        build(Options(weights=str(tmp_path)))
