"""Files that are not what an encoder needs are named in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from coe.base.errors import ConfigError
from coe.router.build import build_encoder
from coe.router.section import PluginConfig


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize(
    ("kind", "option", "said"),
    [
        ("static", "tokenizer", "is not a tokenizer.json"),
        ("use_multilingual", "weights", "does not hold its weights"),
        ("use_multilingual", "tokenizer", "is not a SentencePiece model"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, kind: str, option: str, said: str, is_folder: bool) -> None:
    path = tmp_path / "odd"
    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"\xff\x00 no model")
    options = {"kind": kind, option: str(path)}
    if kind == "static":
        options["weights"] = str(tmp_path / "table.safetensors")
        save_file({"table": np.zeros((2, 2), np.float32)}, options["weights"])
    with pytest.raises(ConfigError, match=said) as caught:
        build_encoder(PluginConfig.model_validate(options))
    assert "odd" in str(caught.value)
