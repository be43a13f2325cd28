"""PEFT adapter folder to llama.cpp LoRA file, so that one entry serves vLLM and the embedded engine.

Llama architecture only. Needs numpy, safetensors and gguf, no torch. The names, the `adapter.*` keys and
the row order of q and k follow llama.cpp's `convert_lora_to_gguf.py` and `convert_hf_to_gguf.py`.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coe.base.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ARCHITECTURE = "llama"
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PEFT_TENSOR = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(\w+\.\w+)\.lora_([AB])\.weight")
# Settings that change what a LoRA computes in a way that a GGUF LoRA cannot express.
UNSUPPORTED = (
    "use_dora",
    "alpha_pattern",
    "rank_pattern",
    "modules_to_save",
    "fan_in_fan_out",
    "lora_bias",
    "trainable_token_indices",
)


@dataclass(frozen=True, slots=True)
class BaseShape:
    """Shape of a base model that an adapter must fit: head counts, and each weight's shape (outputs, inputs)."""

    architecture: str
    n_heads: int
    n_kv_heads: int
    weights: dict[str, tuple[int, int]]


def read_base_shape(base_gguf: Path) -> BaseShape:
    """Shape of a GGUF model. Raises ArtifactError: not a readable GGUF model of the llama architecture."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(base_gguf)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{base_gguf} is not a readable GGUF model: {error}") from error
    architecture = _field(reader, "general.architecture", base_gguf)
    if architecture != ARCHITECTURE:
        raise ArtifactError(
            f"{base_gguf} has architecture {architecture!r}; adapters convert for {ARCHITECTURE!r} only"
        )
    # GGUF lists the fastest axis first: (inputs, outputs).
    weights = {t.name: (int(t.shape[1]), int(t.shape[0])) for t in reader.tensors if len(t.shape) == 2}
    return BaseShape(
        architecture=architecture,
        n_heads=_field(reader, f"{architecture}.attention.head_count", base_gguf),
        n_kv_heads=_field(reader, f"{architecture}.attention.head_count_kv", base_gguf),
        weights=weights,
    )


def _field(reader: Any, key: str, base_gguf: Path) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise ArtifactError(f"{base_gguf} lacks the key {key!r}")
    return field.contents()


def permute_rows(matrix: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Rows of a q or k projection from Hugging Face's rotary order (halves) to llama.cpp's (pairs).

    Within each head, rows 0, 1, ..., h/2 - 1, h/2, ... become 0, h/2, 1, h/2 + 1, ...; shape (outputs, rank).
    """
    rows, columns = matrix.shape
    return matrix.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def convert_adapter(adapter_dir: Path, base: BaseShape, out: Path) -> None:
    """Writes the GGUF of `adapter_dir` (PEFT's two files) to `out`, at once or not at all.

    Raises:
        ArtifactError: files missing or unreadable, a kind of adapter that GGUF cannot hold, or a base of another shape.
    """
    alpha = _read_alpha(adapter_dir)
    tensors = _to_gguf_tensors(_read_tensors(adapter_dir), base, adapter_dir)
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        _write_gguf(part, base.architecture, alpha, tensors)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _read_alpha(adapter_dir: Path) -> float:
    """LoRA's alpha as llama.cpp wants it: the adapter's output is scaled by alpha / rank."""
    path = adapter_dir / "adapter_config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is not a readable adapter configuration: {error}") from error
    if config.get("peft_type") != "LORA":
        raise ArtifactError(f"{path}: peft_type is {config.get('peft_type')!r}; only 'LORA' converts")
    refused = [name for name in UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        refused.append("bias")
    if refused:
        raise ArtifactError(f"{path}: a GGUF LoRA cannot express {', '.join(refused)}")
    rank, alpha = float(config["r"]), float(config["lora_alpha"])
    # rsLoRA scales by alpha / sqrt(rank) instead.
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _read_tensors(adapter_dir: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = adapter_dir / "adapter_model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not readable as float16 or float32 safetensors: {error}") from error
    if not tensors:
        raise ArtifactError(f"{path} holds no tensor")
    return tensors


def _to_gguf_tensors(
    tensors: dict[str, NDArray[Any]], base: BaseShape, adapter_dir: Path
) -> list[tuple[str, NDArray[Any]]]:
    """Renamed and permuted tensors in a fixed order; every A has its B and both fit the base."""
    pairs: dict[str, dict[str, NDArray[Any]]] = {}
    for name, tensor in tensors.items():
        match = PEFT_TENSOR.fullmatch(name)
        if match is None or match[2] not in GGUF_NAMES:
            raise ArtifactError(f"{adapter_dir}: tensor {name!r} is not a LoRA weight of a llama layer")
        pairs.setdefault(f"blk.{match[1]}.{GGUF_NAMES[match[2]]}.weight", {})[match[3]] = tensor
    renamed: list[tuple[str, NDArray[Any]]] = []
    for weight, pair in sorted(pairs.items()):
        _check_pair(weight, pair, base, adapter_dir)
        b = pair["B"]
        if ".attn_q." in weight:
            b = permute_rows(b, base.n_heads)
        elif ".attn_k." in weight:
            b = permute_rows(b, base.n_kv_heads)
        renamed += [(f"{weight}.lora_a", pair["A"]), (f"{weight}.lora_b", np.ascontiguousarray(b))]
    return renamed


def _check_pair(weight: str, pair: dict[str, NDArray[Any]], base: BaseShape, adapter_dir: Path) -> None:
    if set(pair) != {"A", "B"}:
        raise ArtifactError(f"{adapter_dir}: {weight} has lora_{next(iter(pair))} alone, both A and B are needed")
    if weight not in base.weights:
        raise ArtifactError(f"{adapter_dir}: the base model has no weight {weight}: this adapter is of another base")
    outputs, inputs = base.weights[weight]
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or b != (outputs, a[0]) or a[1] != inputs:
        raise ArtifactError(
            f"{adapter_dir}: {weight} has A {a} and B {b}; the base needs A (rank, {inputs}) and B ({outputs}, rank)"
        )


def _write_gguf(path: Path, architecture: str, alpha: float, tensors: Iterable[tuple[str, NDArray[Any]]]) -> None:
    from gguf import GGUFType, GGUFWriter, Keys

    logging.getLogger("gguf").setLevel(logging.WARNING)  # it would tell each file three times
    writer = GGUFWriter(path, architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    for name, tensor in tensors:
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
