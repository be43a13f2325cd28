"""PEFT adapters as llama.cpp files, so that one entry serves vLLM and the embedded engine; converted once and kept by
content in `<data>/adapters`.

Llama architecture only. Needs numpy, safetensors and gguf, no torch. The names, the `adapter.*` keys and
the row order of q and k follow llama.cpp's `convert_lora_to_gguf.py` and `convert_hf_to_gguf.py`. llama.cpp itself
refuses an adapter whose tensors have no pair, or do not fit its base.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coe.base.errors import ArtifactError, MissingWeightsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
GGUF_HEADER_BYTES = 64 * 1024
"""Enough of a GGUF file to hold the head counts and sizes that a conversion depends on."""

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


def converted_adapters(adapters: Mapping[str, Path], base: Path, cache: Path) -> dict[str, Path]:
    """A GGUF LoRA per expert. What was converted before, from the same bytes by the same code, is used again.

    Args:
        adapters: PEFT folder per expert.
        base: the GGUF model they belong to.

    Raises:
        MissingWeightsError: a folder lacks its files.
        ArtifactError: an adapter is damaged, of a kind that GGUF cannot hold, or of another architecture.
    """
    files = {name: cache / f"{content_hash(name, folder, base)}.gguf" for name, folder in adapters.items()}
    lacking = {name: file for name, file in files.items() if not file.exists()}
    if lacking:
        cache.mkdir(parents=True, exist_ok=True)
        heads = read_heads(base)
        for name, file in lacking.items():
            convert_adapter(adapters[name], heads, file)
    return files


def content_hash(expert: str, folder: Path, base: Path) -> str:
    """Hash of everything that a conversion depends on: the adapter, the base's header and size, our code."""
    try:
        digest = hashlib.sha256(adapter_digest(folder).encode())
    except OSError as error:
        raise MissingWeightsError(
            f"experts.{expert}.adapter: {error.filename} cannot be read ({error.strerror})"
        ) from error
    with base.open("rb") as model:
        digest.update(model.read(GGUF_HEADER_BYTES))
    digest.update(str(base.stat().st_size).encode())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:32]


def adapter_digest(folder: Path) -> str:
    """Hex SHA-256 of an adapter's two files. Raises OSError when one cannot be read."""
    digest = hashlib.sha256()
    for file in (folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def read_heads(base_gguf: Path) -> dict[str, int]:
    """Attention heads of a GGUF model by the name of the projection. Raises ArtifactError: not a readable GGUF model of
    the llama architecture."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(base_gguf)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{base_gguf} is not a readable GGUF model: {error}") from error
    keys = ("general.architecture", f"{ARCHITECTURE}.attention.head_count", f"{ARCHITECTURE}.attention.head_count_kv")
    architecture, n_heads, n_kv_heads = (
        None if (field := reader.get_field(key)) is None else field.contents() for key in keys
    )
    if architecture != ARCHITECTURE or n_heads is None or n_kv_heads is None:
        raise ArtifactError(
            f"{base_gguf} has architecture {architecture!r}; adapters convert for {ARCHITECTURE!r} only"
        )
    return {"attn_q": n_heads, "attn_k": n_kv_heads}


def permute_rows(matrix: NDArray[Any], n_heads: int) -> NDArray[Any]:
    """Rows of a q or k projection from Hugging Face's rotary order (halves) to llama.cpp's (pairs).

    Within each head, rows 0, 1, ..., h/2 - 1, h/2, ... become 0, h/2, 1, h/2 + 1, ...; shape (outputs, rank).
    """
    rows, columns = matrix.shape
    return matrix.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def convert_adapter(adapter_dir: Path, heads: Mapping[str, int], out: Path) -> None:
    """Writes the GGUF of `adapter_dir` (PEFT's two files) to `out`, at once or not at all.

    Raises:
        ArtifactError: files missing or unreadable, or a kind of adapter that GGUF cannot hold.
    """
    alpha, tensors = _read_alpha(adapter_dir), _read_tensors(adapter_dir, heads)
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        _write_gguf(part, alpha, tensors)
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _read_alpha(adapter_dir: Path) -> float:
    """LoRA's alpha as llama.cpp wants it: the adapter's output is scaled by alpha / rank."""
    path = adapter_dir / CONFIG_FILE
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


def _read_tensors(adapter_dir: Path, heads: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Renamed and permuted tensors, in a fixed order."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = adapter_dir / WEIGHTS_FILE
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not readable as float16 or float32 safetensors: {error}") from error
    renamed = {}
    for name, tensor in sorted(tensors.items()):
        match = PEFT_TENSOR.fullmatch(name)
        if match is None or match[2] not in GGUF_NAMES:
            raise ArtifactError(f"{adapter_dir}: tensor {name!r} is not a LoRA weight of a llama layer")
        module, side = GGUF_NAMES[match[2]], match[3].lower()
        if module in heads and side == "b":
            tensor = np.ascontiguousarray(permute_rows(tensor, heads[module]))
        renamed[f"blk.{match[1]}.{module}.weight.lora_{side}"] = tensor
    if not renamed:
        raise ArtifactError(f"{path} holds no tensor")
    return renamed


def _write_gguf(path: Path, alpha: float, tensors: Mapping[str, NDArray[Any]]) -> None:
    from gguf import GGUFType, GGUFWriter, Keys

    logging.getLogger("gguf").setLevel(logging.WARNING)  # it would tell each file three times
    writer = GGUFWriter(path, ARCHITECTURE)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, alpha)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
