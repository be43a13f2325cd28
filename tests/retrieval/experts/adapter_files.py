"""A tiny BERT and a LoRA adapter for it, written to disk in the layouts of their libraries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from coe.retrieval.adaptable import LINEAR
from coe_offline import bert
from coe_offline.bert import BertEncoder

WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "law", "court", "drug", "dose", "what", "is", "the", "of")
WIDTH, INNER, LAYERS, HEADS, RANK, ALPHA = 16, 32, 2, 4, 2, 6.0


def write_bert(folder: Path, seed: int = 0, **config: object) -> Path:
    """A model folder with random weights."""
    rng = np.random.default_rng(seed)

    def random(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5, size=shape).astype(np.float32)

    arrays = {
        "embeddings.word_embeddings.weight": random(len(WORDS), WIDTH),
        "embeddings.position_embeddings.weight": random(64, WIDTH),
        "embeddings.token_type_embeddings.weight": random(2, WIDTH),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        for part, shape in zip(LINEAR, shapes(), strict=True):
            arrays[f"encoder.layer.{layer}.{part}.weight"] = random(*shape)
            arrays[f"encoder.layer.{layer}.{part}.bias"] = random(shape[0])
        norms += [f"encoder.layer.{layer}.{part}.LayerNorm" for part in ("attention.output", "output")]
    for name in norms:
        arrays |= {f"{name}.weight": 1 + random(WIDTH), f"{name}.bias": random(WIDTH)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / "model.safetensors")
    settings = {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "vocab_size": len(WORDS),
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(settings | config))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def shapes() -> list[tuple[int, int]]:
    """(out, in) of each product of a layer."""
    return [(WIDTH, WIDTH)] * 4 + [(INNER, WIDTH), (WIDTH, INNER)]


def load_bert(folder: Path, max_tokens: int = 32) -> BertEncoder:
    return bert.build(bert.Options(model=str(folder), max_tokens=max_tokens))


def lora_arrays(seed: int = 1, rank: int = RANK) -> dict[str, np.ndarray]:
    """PEFT's names: A is (r, in), B is (out, r)."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for layer in range(LAYERS):
        for part, (out, width) in zip(LINEAR, shapes(), strict=True):
            name = f"base_model.model.encoder.layer.{layer}.{part}"
            arrays[f"{name}.lora_A.weight"] = rng.normal(0, 0.3, size=(rank, width)).astype(np.float32)
            arrays[f"{name}.lora_B.weight"] = rng.normal(0, 0.3, size=(out, rank)).astype(np.float32)
    return arrays


def write_adapter(
    folder: Path,
    base: BertEncoder,
    arrays: dict[str, np.ndarray] | None = None,
    *,
    held_out: float = 0.5,
    **config: object,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora_arrays() if arrays is None else arrays, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none", "base_model_name_or_path": None}
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    manifest = {
        "name": folder.name,
        "base_fingerprint": base.fingerprint,
        "weights_sha256": hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest(),
        "created_at": "2026-01-01T00:00:00+00:00",
        "settings": {"held_out": held_out},
        "data_fingerprint": "d" * 32,
        "held_out": 3,
        "pairs": 9,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
