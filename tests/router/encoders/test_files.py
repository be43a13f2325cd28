"""Files that are not what an encoder needs are named in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from base.errors import ConfigError
from router.build import build_encoder
from router.section import PluginConfig


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
    with pytest.raises(ConfigError, match=said) as caught:
        build_encoder(PluginConfig.model_validate({"kind": kind, option: str(path)}))
    assert "odd" in str(caught.value)
