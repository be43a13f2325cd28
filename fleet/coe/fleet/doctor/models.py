"""Models of random weights that vLLM loads as it loads any other: nothing is downloaded, and no two answer alike.

`--load-format dummy` will not do: its log-probabilities are uniform, and it cannot read its weights again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BYTES, END = 256, "</s>"
STD, TILE = 0.02, (1 << 22) - 3
"""Of the weights, and how many of them are drawn: they repeat at an odd distance, so that no row of a matrix does."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A model of the family of Llama, under the names of its config.json."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    vocabulary: int

    @property
    def head(self) -> int:
        return self.hidden // self.heads

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
    hidden, kept = shape.hidden, shape.kv_heads * shape.head
    of_layer = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kept, hidden),
        "self_attn.v_proj": (kept, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (shape.inner, hidden),
        "mlp.up_proj": (shape.inner, hidden),
        "mlp.down_proj": (hidden, shape.inner),
        "input_layernorm": (1, hidden),
        "post_attention_layernorm": (1, hidden),
    }
    layers = {f"model.layers.{n}.{name}.weight": size for n in range(shape.layers) for name, size in of_layer.items()}
    return {"model.embed_tokens.weight": (shape.vocabulary, hidden), **layers, "model.norm.weight": (1, hidden)}


def write_model(folder: Path, shape: Shape, seed: int, context: int) -> None:
    """A folder that vLLM serves. Nothing is done where it is whole already."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", tensors_of(shape), seed)
    write_tokenizer(folder, shape.vocabulary)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": True,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "bos_token_id": BYTES,
        "eos_token_id": BYTES,
        "torch_dtype": "bfloat16",
    }
    write_json(folder / "config.json", config)  # last: it says that the others are whole


def write_adapter(folder: Path, shape: Shape, seed: int, rank: int = 8) -> None:
    """A LoRA adapter in PEFT's form, whose answers differ from those of its base."""
    if (folder / "adapter_config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"base_model.model.model.layers.{number}.self_attn.q_proj" for number in range(shape.layers)]
    sizes = {f"{name}.lora_A.weight": (rank, shape.hidden) for name in names}
    sizes |= {f"{name}.lora_B.weight": (shape.hidden, rank) for name in names}
    write_tensors(folder / "adapter_model.safetensors", sizes, seed)
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 1024 * rank, "target_modules": ["q_proj"], "bias": "none"}
    write_json(folder / "adapter_config.json", {**config, "task_type": "CAUSAL_LM"})


def write_tensors(path: Path, sizes: Mapping[str, tuple[int, int]], seed: int) -> None:
    """In bfloat16, in the format of safetensors: the length of a header, the header, the numbers."""
    header, end = {}, 0
    for name, (rows, columns) in sizes.items():
        begin, end = end, end + 2 * rows * columns
        shape = [columns] if rows == 1 else [rows, columns]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for block in numbers(sizes, seed):
            file.write(block.tobytes())


def numbers(sizes: Mapping[str, tuple[int, int]], seed: int) -> Iterator[NDArray[np.uint16]]:
    """Normal deviates for matrices, ones for vectors; each the upper half of a float32."""
    drawn = np.random.default_rng(seed).standard_normal(TILE, dtype=np.float32) * np.float32(STD)
    tile = (drawn.view(np.uint32) >> 16).astype(np.uint16)
    one = np.uint16(np.float32(1.0).view(np.uint32) >> 16)
    place = 0
    for rows, columns in sizes.values():
        if rows == 1:
            yield np.full(columns, one)
            continue
        yield np.resize(np.roll(tile, -place), rows * columns)
        place = (place + rows * columns) % TILE


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """A byte a token, and words that no text has up to the size of the vocabulary."""
    words = {word: number for number, word in enumerate(byte_words())}
    words |= {END: BYTES} | {f"<{number}>": number for number in range(BYTES + 1, vocabulary)}
    end = {"id": BYTES, "content": END, "special": True, "normalized": False}
    of_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [end | flags],
        "pre_tokenizer": of_bytes,
        "decoder": of_bytes,
        "model": {"type": "BPE", "vocab": words, "merges": []},
    }
    write_json(folder / "tokenizer.json", tokenizer)
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "chat_template": template}
    write_json(folder / "tokenizer_config.json", own)


def byte_words() -> list[str]:
    """The character by which GPT-2's byte-level tokenizers write each byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(BYTES, 2 * BYTES))
    return [chr(byte if byte in shown else next(others)) for byte in range(BYTES)]


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
