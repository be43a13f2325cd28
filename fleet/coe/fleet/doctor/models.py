"""Models of random weights that vLLM loads as it loads any other: nothing is downloaded, and no two answer alike.

`--load-format dummy` will not do: its log-probabilities are uniform, and it cannot read its weights again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BYTES = 256  # each a token, and no text has any of the others
STD, TILE = 0.02, (1 << 22) - 3
"""Of the weights, and how many of them are drawn: they repeat at an odd distance, so that no row of a matrix does."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of the family of Llama."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def billions(self) -> float:
        return sum(rows * columns for rows, columns in tensors_of(self).values()) / 1e9


SHAPES = {
    "tiny": Shape(4, 256, 512, 8, 4, 2048),
    "1b": Shape(16, 2048, 8192, 32, 8, 128256),  # of Llama 3.2 1B
    "8b": Shape(32, 4096, 14336, 32, 8, 128256),  # of Llama 3.1 8B, with embeddings that serve twice
}


def tensors_of(shape: Shape) -> dict[str, tuple[int, int]]:
    """Rows and columns by name; one row for a vector."""
    hidden, inner, kept = shape.hidden, shape.inner, shape.kv_heads * shape.hidden // shape.heads
    of_layer = {"input_layernorm": (1, hidden), "post_attention_layernorm": (1, hidden)}
    of_layer |= {f"self_attn.{name}_proj": (hidden if name in "qo" else kept, hidden) for name in "qkvo"}
    of_layer |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    layers = {f"layers.{number}.{name}": size for number in range(shape.layers) for name, size in of_layer.items()}
    all_of_them = {"embed_tokens": (shape.vocabulary, hidden), **layers, "norm": (1, hidden)}
    return {f"model.{name}.weight": size for name, size in all_of_them.items()}


def write_model(folder: Path, shape: Shape, seed: int, context: int) -> None:
    """A folder that vLLM serves. Nothing is done where it is whole already."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors_of(shape), seed)
    words = [*byte_words(), "</s>", *(f"<{number}>" for number in range(BYTES + 1, shape.vocabulary))]
    model = {"type": "BPE", "vocab": {word: number for number, word in enumerate(words)}, "merges": []}
    write_json(folder, "tokenizer", model=model)
    write_json(folder, "tokenizer_config")
    names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    sizes = dict(zip((*names, "vocab_size"), astuple(shape), strict=True))
    write_json(folder, "config", **sizes, max_position_embeddings=context)  # last: it says that the others are whole


def write_adapter(folder: Path, shape: Shape, seed: int, rank: int = 8) -> None:
    """A LoRA adapter in PEFT's form, whose answers differ from those of its base."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"base_model.model.model.layers.{number}.self_attn.q_proj" for number in range(shape.layers)]
    sizes = {f"{name}.lora_A.weight": (rank, shape.hidden) for name in names}
    sizes |= {f"{name}.lora_B.weight": (shape.hidden, rank) for name in names}
    write_tensors(folder / "adapter_model.safetensors", sizes, seed)
    write_json(folder, "adapter_config", r=rank, lora_alpha=1024 * rank)


def write_tensors(path: Path, sizes: Mapping[str, tuple[int, int]], seed: int) -> None:
    """In bfloat16, in the format of safetensors: the length of a header, the header, the numbers. Normal deviates for
    matrices, ones for vectors."""
    header, end = {}, 0
    for name, (rows, columns) in sizes.items():
        begin, end = end, end + 2 * rows * columns
        shape = [columns] if rows == 1 else [rows, columns]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    tile = upper_half(np.random.default_rng(seed).standard_normal(TILE, dtype=np.float32) * np.float32(STD))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for rows, columns in sizes.values():
            ones = upper_half(np.ones(columns, dtype=np.float32))
            file.write((ones if rows == 1 else np.resize(np.roll(tile, -file.tell()), rows * columns)).tobytes())


def upper_half(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """As bfloat16."""
    return (numbers.view(np.uint32) >> 16).astype(np.uint16)


def byte_words() -> list[str]:
    """The character by which GPT-2's byte-level tokenizers write each byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(BYTES, 2 * BYTES))
    return [chr(byte if byte in shown else next(others)) for byte in range(BYTES)]


def write_json(folder: Path, name: str, **more: object) -> None:
    """One of the files of llama.json, with what a model has of its own."""
    common = json.loads(Path(__file__).with_name("llama.json").read_text(encoding="utf-8"))[name]
    (folder / f"{name}.json").write_text(json.dumps({**common, **more}), encoding="utf-8")
