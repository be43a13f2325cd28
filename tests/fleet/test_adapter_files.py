"""Adapters are converted once per content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import save_file

from coe.base.errors import ArtifactError, MissingWeightsError
from coe.fleet.hosts.adapter_files import converted_adapters

WIDTH, RANK = 8, 2
PEFT_NAME = "base_model.model.model.layers.0.mlp.up_proj"


def write_base(path: Path) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_tensor("blk.0.ffn_up.weight", np.zeros((WIDTH, WIDTH), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_adapter(folder: Path, value: float, alpha: int = 4) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": alpha}))
    weights = {
        f"{PEFT_NAME}.lora_A.weight": np.full((RANK, WIDTH), value, dtype=np.float32),
        f"{PEFT_NAME}.lora_B.weight": np.full((WIDTH, RANK), value, dtype=np.float32),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    return folder


def test_each_adapter_becomes_a_file_with_its_weights(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf")
    adapters = {"a": write_adapter(tmp_path / "a", 1.0), "b": write_adapter(tmp_path / "b", 2.0)}
    files = converted_adapters(adapters, base, tmp_path / "cache")
    values = {name: float(GGUFReader(file).tensors[0].data.max()) for name, file in files.items()}
    assert values == {"a": 1.0, "b": 2.0}


def test_the_second_call_converts_nothing(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf")
    adapters = {"a": write_adapter(tmp_path / "a", 1.0)}
    first = converted_adapters(adapters, base, tmp_path / "cache")["a"]
    made_at = first.stat().st_mtime_ns
    assert converted_adapters(adapters, base, tmp_path / "cache")["a"] == first
    assert first.stat().st_mtime_ns == made_at
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [first.name]


def test_other_weights_or_settings_make_another_file(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf")
    made = set()
    for value, alpha in ((1.0, 4), (2.0, 4), (2.0, 8)):
        adapters = {"a": write_adapter(tmp_path / "a", value, alpha)}
        made.add(converted_adapters(adapters, base, tmp_path / "cache")["a"])
    assert len(made) == 3


def test_a_missing_file_names_the_expert_and_the_file(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "a", 1.0)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(MissingWeightsError, match=r"experts\.calculator\.adapter: .*a/adapter_model\.safetensors"):
        converted_adapters({"calculator": adapter}, base, tmp_path / "cache")


def test_a_damaged_adapter_leaves_no_file(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base.gguf")
    adapter = write_adapter(tmp_path / "a", 1.0)
    (adapter / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ArtifactError):
        converted_adapters({"calculator": adapter}, base, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
