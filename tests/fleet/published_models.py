"""Shapes of models as their makers published them in config.json."""

from __future__ import annotations

from typing import Any

from coe.fleet.vllm.model_sizes import Model, model_of


def config(layers: int, hidden: int, inner: int, heads: int, kv_heads: int, vocabulary: int, **more: object) -> Any:
    """The fields of a config.json that count."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "max_position_embeddings": 131072,
        **more,
    }


def gpt_oss(layers: int) -> dict[str, Any]:
    """Every second layer looks back 128 tokens, and only the experts are quantised."""
    return {
        "head_dim": 64,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * (layers // 2),
        "quantization_config": {
            "quant_method": "mxfp4",
            "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
        },
    }


TIED: dict[str, Any] = {"tie_word_embeddings": True}
GEMMA: dict[str, Any] = {"model_type": "gemma2", "sliding_window": 4096, **TIED}
MODELS: dict[str, dict[str, Any]] = {
    "Qwen2.5-7B": config(28, 3584, 18944, 28, 4, 152064, sliding_window=131072, use_sliding_window=False),
    "Llama-3.1-8B": config(32, 4096, 14336, 32, 8, 128256),
    "Qwen3-8B": config(36, 4096, 12288, 32, 8, 151936, head_dim=128),
    "Mistral-7B": config(32, 4096, 14336, 32, 8, 32768, sliding_window=None),
    "gemma-2-9b": config(42, 3584, 14336, 16, 8, 256000, head_dim=256, **GEMMA),
    "Qwen3-4B": config(36, 2560, 9728, 32, 8, 151936, head_dim=128, tie_word_embeddings=True),
    "Qwen2.5-14B": config(48, 5120, 13824, 40, 8, 152064),
    "phi-4": config(40, 5120, 17920, 40, 10, 100352),
    "gemma-2-27b": config(46, 4608, 36864, 32, 16, 256000, head_dim=128, **GEMMA),
    "Qwen2.5-32B": config(64, 5120, 27648, 40, 8, 152064),
    "Qwen3-30B-A3B": config(
        *(48, 2048, 6144, 32, 4, 151936),
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
    ),
    "DeepSeek-V2-Lite": config(
        *(27, 2048, 10944, 16, 16, 102400),
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1408,
        first_k_dense_replace=1,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
    ),
    "Llama-3.2-1B": config(16, 2048, 8192, 32, 8, 128256, **TIED),
    "Llama-3.2-3B": config(28, 3072, 8192, 24, 8, 128256, **TIED),
    "Llama-3.1-70B": config(80, 8192, 28672, 64, 8, 128256),
    "Llama-3.1-405B": config(126, 16384, 53248, 128, 8, 128256),
    "Qwen2.5-0.5B": config(24, 896, 4864, 14, 2, 151936, **TIED),
    "Qwen2.5-1.5B": config(28, 1536, 8960, 12, 2, 151936, **TIED),
    "Qwen2.5-3B": config(36, 2048, 11008, 16, 2, 151936, **TIED),
    "Qwen2.5-72B": config(80, 8192, 29568, 64, 8, 152064),
    "Qwen3-0.6B": config(28, 1024, 3072, 16, 8, 151936, head_dim=128, **TIED),
    "Qwen3-14B": config(40, 5120, 17408, 40, 8, 151936, head_dim=128),
    "Qwen3-32B": config(64, 5120, 25600, 64, 8, 151936, head_dim=128),
    "Qwen3-235B-A22B": config(
        *(94, 4096, 12288, 64, 4, 151936),
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=1536,
    ),
    "Qwen3-Embedding-8B": config(36, 4096, 12288, 32, 8, 151665, head_dim=128),
    "Mistral-7B-v0.1": config(32, 4096, 14336, 32, 8, 32000, sliding_window=4096),
    "Mistral-Nemo": config(40, 5120, 14336, 32, 8, 131072, head_dim=128),
    "Mistral-Small-24B": config(40, 5120, 32768, 32, 8, 131072, head_dim=128),
    "Mixtral-8x7B": config(32, 4096, 14336, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2),
    "gemma-2-2b": config(26, 2304, 9216, 8, 4, 256000, head_dim=256, **GEMMA),
    "gemma-3-1b": config(
        *(26, 1152, 6912, 4, 1, 262144), head_dim=256, sliding_window=512, sliding_window_pattern=6, **TIED
    ),
    "Phi-3-mini": config(32, 3072, 8192, 32, 32, 32064, sliding_window=2047),
    "Phi-4-mini": config(32, 3072, 8192, 24, 8, 200064, **TIED),
    "Yi-1.5-34B": config(60, 7168, 20480, 56, 8, 64000),
    "OLMo-2-7B": config(32, 4096, 11008, 32, 32, 100352),
    "Command-R7B": config(32, 4096, 14336, 32, 8, 256000, sliding_window=4096, sliding_window_pattern=4, **TIED),
    "starcoder2-7b": config(32, 4608, 18432, 36, 4, 49152, model_type="starcoder2", sliding_window=4096, **TIED),
    "bge-m3": config(24, 1024, 4096, 16, 16, 250002, model_type="xlm-roberta", **TIED),
    "gpt-oss-20b": config(24, 2880, 2880, 64, 8, 201088, num_local_experts=32, **gpt_oss(24)),
    "gpt-oss-120b": config(36, 2880, 2880, 64, 8, 201088, num_local_experts=128, **gpt_oss(36)),
    "DeepSeek-V3": config(
        *(61, 7168, 18432, 128, 128, 129280),
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        moe_intermediate_size=2048,
        first_k_dense_replace=3,
        kv_lora_rank=512,
        q_lora_rank=1536,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        quantization_config={"quant_method": "fp8"},
    ),
}


def model(name: str) -> Model:
    found = model_of(MODELS[name])
    assert found is not None
    return found
