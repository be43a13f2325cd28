"""A tiny BERT, and an expert that was trained of it, on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from coe.retrieval.experts.trained import MANIFEST_FILE
from coe.router.encoders.onnx import OnnxEncoder
from coe_offline import bert

LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "law", "court", "drug", "dose", "what", "is", "the", "of")
WIDTH, INNER, LAYERS, HEADS = 16, 32, 2, 4


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


def load_bert(folder: Path, max_tokens: int = 32) -> OnnxEncoder:
    return bert.build(bert.Options(model=str(folder), max_tokens=max_tokens))


def write_trained(folder: Path, base: OnnxEncoder, seed: int = 1, max_tokens: int = 32) -> Path:
    """An expert for `base`, with random weights."""
    write_bert(folder, seed=seed)
    manifest = {
        "base_fingerprint": base.fingerprint,
        "kind": "bert",
        "options": {"max_tokens": max_tokens},
        "created_at": "2026-01-01T00:00:00+00:00",
        "dev_ndcg": 0.5,
        "dev_ndcg_base": 0.4,
    }
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder
