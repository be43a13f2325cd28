"""The ONNX encoder on a model made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from coe.base.errors import ConfigError
from coe.router.encoders.onnx import Options, build
from coe_offline.onnx_graph import Graph

TABLE = np.array([[9, 9], [3, 0], [0, 4]], np.float32)


def made_options(folder: Path, **changes: object) -> Options:
    """A model that looks tokens up, with its tokenizer."""
    graph = Graph()
    hidden = graph.add("Gather", graph.constant(TABLE), "input_ids", axis=0)
    tokens = ("int64", (1, "tokens"))
    model = graph.model({"input_ids": tokens}, {hidden: ("float32", (1, "tokens", 2))})
    (folder / "model.onnx").write_bytes(model)
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "red": 1, "green": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {"weights": str(folder / "model.onnx"), "tokenizer": str(folder / "tokenizer.json")}
    return Options.model_validate(files | changes)


def test_the_vector_is_the_mean_over_tokens(tmp_path: Path) -> None:
    encoder = build(made_options(tmp_path))
    vectors = encoder.encode(["red", "red green", " "])
    np.testing.assert_allclose(vectors, [[1, 0], [0.6, 0.8], [0, 0]], atol=1e-6)
    assert encoder.encode([]).shape == (0, 2)
    assert encoder.dim == 2


def test_tokens_after_the_limit_are_not_read_and_name_another_space(tmp_path: Path) -> None:
    long, short = build(made_options(tmp_path)), build(made_options(tmp_path, max_tokens=8))
    text = "red " * 8 + "green " * 100
    np.testing.assert_allclose(short.encode([text]), [[1, 0]], atol=1e-6)
    assert long.encode([text])[0, 1] > 0.9
    assert long.fingerprint != short.fingerprint


@pytest.mark.parametrize("size", [0, 5, 40])
def test_a_model_that_is_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    options = made_options(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ConfigError, match=r"model\.onnx cannot be loaded as an ONNX model"):
        build(options)


def test_a_folder_and_another_tokenizer_are_refused(tmp_path: Path) -> None:
    options = made_options(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be loaded as an ONNX model"):
        build(options.model_copy(update={"weights": str(tmp_path)}))
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\x00 no tokenizer")
    with pytest.raises(ConfigError, match=r"is not a tokenizer\.json"):
        build(options)
