"""PEFT to GGUF: names, row order and scale as llama.cpp expects; anything else is refused with its reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import save_file

from coe.base.errors import ArtifactError
from coe.fleet.hosts.adapter_files import convert_adapter, permute_rows, read_heads

RANK = 2
HEADS = {"attn_q": 2, "attn_k": 1}
SHAPES = {"self_attn.q_proj": (8, 6), "self_attn.k_proj": (4, 6), "mlp.down_proj": (6, 10)}


def tensor_name(module: str, side: str, layer: int = 0) -> str:
    return f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"


def tiny_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tensors = {}
    for module, (outputs, inputs) in SHAPES.items():
        tensors[tensor_name(module, "A")] = rng.normal(size=(RANK, inputs)).astype(np.float16)
        tensors[tensor_name(module, "B")] = rng.normal(size=(outputs, RANK)).astype(np.float16)
    return tensors


def write_adapter(folder: Path, tensors: dict[str, np.ndarray], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def convert(folder: Path) -> GGUFReader:
    out = folder / "adapter.gguf"
    convert_adapter(folder, HEADS, out)
    return GGUFReader(out)


def test_permutation_reference_values() -> None:
    one_head = np.arange(8).reshape(8, 1)
    assert permute_rows(one_head, 1)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert permute_rows(one_head, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_tensors_and_keys(tmp_path: Path) -> None:
    tensors = tiny_tensors()
    reader = convert(write_adapter(tmp_path / "tiny", tensors))
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert set(found) == {
        f"blk.0.{name}.weight.lora_{side}" for name in ("attn_q", "attn_k", "ffn_down") for side in "ab"
    }
    assert all(data.dtype == np.float16 for data in found.values())
    down_b = tensors[tensor_name("mlp.down_proj", "B")]
    np.testing.assert_array_equal(found["blk.0.ffn_down.weight.lora_b"], down_b)
    q_a, q_b = (tensors[tensor_name("self_attn.q_proj", side)] for side in "AB")
    np.testing.assert_array_equal(found["blk.0.attn_q.weight.lora_a"], q_a)
    np.testing.assert_array_equal(found["blk.0.attn_q.weight.lora_b"], q_b[[0, 2, 1, 3, 4, 6, 5, 7]])
    k_b = tensors[tensor_name("self_attn.k_proj", "B")]
    np.testing.assert_array_equal(found["blk.0.attn_k.weight.lora_b"], k_b[[0, 2, 1, 3]])
    keys = {key: reader.get_field(key).contents() for key in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert keys == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 8.0}


def test_rank_stabilised_scale(tmp_path: Path) -> None:
    reader = convert(write_adapter(tmp_path / "tiny", tiny_tensors(), use_rslora=True))
    alpha = reader.get_field("adapter.lora.alpha").contents()
    assert alpha / RANK == pytest.approx(8 / RANK**0.5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'"),
        ({"use_dora": True}, "cannot express use_dora"),
        ({"bias": "all"}, "cannot express bias"),
        ({"modules_to_save": ["lm_head"]}, "cannot express modules_to_save"),
    ],
)
def test_other_kinds_of_adapters_are_refused(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    folder = write_adapter(tmp_path / "tiny", tiny_tensors(), **config)
    with pytest.raises(ArtifactError, match=reason):
        convert(folder)
    assert not (folder / "adapter.gguf").exists()


@pytest.mark.parametrize("tensors", [{}, {"base_model.model.lm_head.lora_A.weight": np.zeros((RANK, 6), np.float16)}])
def test_tensors_of_no_layer_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(ArtifactError, match=r"is not a LoRA weight of a llama layer|holds no tensor"):
        convert(write_adapter(tmp_path / "tiny", tensors))


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"adapter_config\.json is not a readable"):
        convert_adapter(tmp_path, HEADS, tmp_path / "out.gguf")
    folder = write_adapter(tmp_path / "tiny", tiny_tensors())
    (folder / "adapter_model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors is not readable"):
        convert(folder)


def write_model(path: Path, architecture: str) -> None:
    writer = GGUFWriter(path, architecture)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((8, 6), np.float32))
    writer.add_tensor("output_norm.weight", np.zeros(6, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_heads_of_a_base(tmp_path: Path) -> None:
    write_model(tmp_path / "base.gguf", "llama")
    assert read_heads(tmp_path / "base.gguf") == HEADS


def test_base_of_another_architecture(tmp_path: Path) -> None:
    write_model(tmp_path / "base.gguf", "gemma3")
    with pytest.raises(ArtifactError, match="architecture 'gemma3'"):
        read_heads(tmp_path / "base.gguf")


def test_base_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "base.gguf").write_bytes(b"PK" * 100)
    with pytest.raises(ArtifactError, match="not a readable GGUF model"):
        read_heads(tmp_path / "base.gguf")
