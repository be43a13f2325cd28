"""Sizes of a model that its config.json names, as vLLM makes tensors of them (`ModelArchConfigConvertorBase`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCALED_4_BITS = {"awq": 0.52, "gptq": 0.52, "bitsandbytes": 0.5625, "mxfp4": 0.53}
"""Bytes of a weight with its scales, in groups of 128, 128, 64 and 32."""

UNGATED = ("bert", "roberta", "xlm-roberta", "gpt_neox", "nemotron", "phi", "starcoder2")
"""Types of models whose MLP is two matrices; others have a gate beside them."""

ENCODER_ONLY = ("bert", "roberta")
"""In the types of models that read a text at once and keep no cache (`EncoderOnlyAttentionSpec`)."""

OTHER_STATE = ("mamba", "linear", "ssm", "recurrent")
"""In names of layers that keep no cache of this form."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Weights that vLLM keeps in one tensor: of `parts` matrices that share their input, for each of `copies` experts
    of a layer. A model has `count` of them; vLLM quantises those that are `linear`."""

    inputs: int
    outputs: int
    count: int
    parts: int = 1
    copies: int = 1
    linear: bool = True

    @property
    def elements(self) -> int:
        return self.inputs * self.outputs * self.copies


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes that config.json names. `head` is what the cache keeps of a token for each of `kv_heads`: key and value, or
    the latent vector of MLA; an encoder without a cache has 0 of them. `windowed` of the layers look back `window`
    tokens only. `inner` is the width of a layer's MLP, of all experts that a token meets. `context` is 0 where it is
    not known."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int
    kv_heads: int
    head: int
    matrices: tuple[Matrix, ...]
    context: int
    window: int = 0
    windowed: int = 0
    weight_bytes: float = 2.0


def model_of(config: Mapping[str, Any]) -> Model | None:
    """The sizes in a config.json. None where it has parts that are not counted here: images, audio, layers with another
    state than keys and values, or an unknown form."""
    if any(f"{part}_config" in config for part in ("vision", "audio", "encoder")):
        return None
    kinds = config.get("layer_types") or []
    if any(word in str(kind) for kind in (*kinds, config.get("model_type", "")) for word in OTHER_STATE):
        return None
    try:
        layers, hidden, vocabulary = config["num_hidden_layers"], config["hidden_size"], config["vocab_size"]
        heads = config["num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        kv_heads = config.get("num_key_value_heads") or heads
        mlp, inner = mlp_of(config, layers, hidden)
    except (KeyError, TypeError, ZeroDivisionError):
        return None
    quantization = config.get("quantization_config") or {}
    outer = 1 if config.get("tie_word_embeddings", config.get("model_type", "").startswith("gemma")) else 2
    embedding = Matrix(hidden, vocabulary, count=outer, linear=False)
    if latent := config.get("kv_lora_rank"):
        attention = latent_attention(config, layers, hidden, heads)
        kv_heads, kept = 1, latent + config.get("qk_rope_head_dim", 0)
    else:
        is_linear = "attn" not in str(quantization.get("modules_to_not_convert"))
        fused = Matrix(hidden, (heads + 2 * kv_heads) * head, layers, parts=3, linear=is_linear)
        attention, kept = (fused, Matrix(heads * head, hidden, layers, linear=is_linear)), 2 * head
    if any(word in str(config.get("model_type", "")) for word in ENCODER_ONLY):
        kv_heads = 0
    window, windowed = window_of(config, layers)
    return Model(
        layers=layers,
        hidden=hidden,
        inner=inner,
        vocabulary=vocabulary,
        kv_heads=kv_heads,
        head=kept,
        matrices=(embedding, *attention, *mlp),
        context=0 if is_stretched(config) else config.get("max_position_embeddings") or 0,
        window=window,
        windowed=windowed,
        weight_bytes=weight_bytes(quantization),
    )


def is_stretched(config: Mapping[str, Any]) -> bool:
    """Returns True where a model reads more than its positions (`_get_and_verify_max_len`)."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return rope.get("rope_type", rope.get("type")) in ("yarn", "linear", "dynamic", "longrope")


def mlp_of(config: Mapping[str, Any], layers: int, hidden: int) -> tuple[tuple[Matrix, ...], int]:
    """Gate and up in one tensor, and down; those of experts in one for a layer, beside those that every token meets.
    And the width that a token meets."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((config[name] for name in names if config.get(name)), 0)
    width, inputs = config["intermediate_size"], 1 if config.get("model_type") in UNGATED else 2
    dense = config.get("first_k_dense_replace", 0) if experts else layers
    found = [Matrix(hidden, inputs * width, dense, parts=inputs), Matrix(width, hidden, dense)] if dense else []
    if not experts:
        return tuple(found), width
    own = config.get("moe_intermediate_size") or width
    shared = own * (config.get("n_shared_experts") or 0) or config.get("shared_expert_intermediate_size") or 0
    rest = layers - dense
    found += [Matrix(hidden, 2 * own, rest, 2, experts), Matrix(own, hidden, rest, copies=experts)]
    if shared:
        found += [Matrix(hidden, 2 * shared, rest, parts=2), Matrix(shared, hidden, rest)]
    return tuple(found), max(width if dense else 0, own * config["num_experts_per_tok"] + shared)


def latent_attention(config: Mapping[str, Any], layers: int, hidden: int, heads: int) -> tuple[Matrix, ...]:
    """MLA as DeepSeek has it: queries and the latent vector, each by way of a smaller width where there is one."""
    latent, rope = config["kv_lora_rank"], config["qk_rope_head_dim"]
    nope, value, query = config["qk_nope_head_dim"], config["v_head_dim"], config.get("q_lora_rank")
    begin = [Matrix(hidden, query, layers)] if query else []
    return (
        *begin,
        Matrix(query or hidden, heads * (nope + rope), layers),
        Matrix(hidden, latent + rope, layers),
        Matrix(latent, heads * (nope + value), layers),
        Matrix(heads * value, hidden, layers),
    )


def window_of(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """How far layers look back, and how many of them do; 0 where all look at everything."""
    window = config.get("sliding_window") or 0
    if not window or config.get("use_sliding_window") is False:
        return 0, 0
    if kinds := config.get("layer_types"):
        return window, sum(kind == "sliding_attention" for kind in kinds)
    every = config.get("sliding_window_pattern") or (2 if config.get("model_type") == "gemma2" else 0)
    return window, layers - layers // every if every else layers


def weight_bytes(quantization: Mapping[str, Any]) -> float:
    """Bytes of a weight of a linear layer with its scales; of a format that is not known those of bfloat16."""
    method = str(quantization.get("quant_method", "")).lower()
    if method == "fp8" or quantization.get("load_in_8bit"):
        return 1.0
    if method == "compressed-tensors":
        groups = list((quantization.get("config_groups") or {}).values())
        bits: int = ((groups[0] if groups else {}).get("weights") or {}).get("num_bits", 16)
        return bits / 8 + (0.02 if bits < 8 else 0.0)
    return next((size for name, size in SCALED_4_BITS.items() if method.startswith(name)), 2.0)


def read_model(model: str, environment: Mapping[str, str]) -> Model | None:
    """Sizes of a model of this host: a folder, or what the hub's cache has of it; None where it has no config.json."""
    folder = Path(model)
    if not folder.is_absolute():
        home = Path(environment.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        kept = Path(environment.get("HF_HUB_CACHE") or home / "hub") / f"models--{model.replace('/', '--')}"
        try:
            folder = kept / "snapshots" / (kept / "refs" / "main").read_text().strip()
        except OSError:
            return None
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return model_of(config) if isinstance(config, dict) else None
