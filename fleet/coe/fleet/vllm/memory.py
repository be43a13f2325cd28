"""GPU and host memory of a vLLM engine, counted as vLLM counts it when it starts. Pure.

Sources are files of vLLM 0.32, with PyTorch's pinned memory for what sleeps at level 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from coe.fleet.figures import USUAL, Figures
from coe.fleet.vllm.model_sizes import Matrix, Model, weight_bytes
from coe.router.config.expert import ExpertConfig, ScalarOption

GIB = 2**30
BLOCK_TOKENS = 16  # of the cache (config/cache.py)
BATCHES_IN_FLIGHT = 2  # with asynchronous scheduling, the default (VllmConfig.max_concurrent_batches)
BATCHES = ((160.0, 16384, 1024), (70.0, 8192, 1024), (0.0, 2048, 256))
"""Least GiB of a GPU, and the tokens and sequences of a step there (`EngineArgs.get_batch_defaults`). vLLM takes the
last on an A100 of any size, which `vllm.args` can say."""

DEFAULT_SHARE = 0.9
"""Of a GPU, where no flag says another; 0.92 from 0.33 on."""

CACHE_SHARE, LEAST_CACHE_GIB = 0.25, 4.0
"""Least memory beside the weights where nobody names one: a share of them, at least so many GiB (ours)."""

GIB_PER_BILLION = {"awq": 0.56, "gptq": 0.56, "bitsandbytes": 0.56, "fp8": 0.98, "": 1.87}
"""GiB of weights per billion parameters of a model whose config.json is not here; "" is bfloat16. 4-bit formats keep
scales and some layers."""

PINNED_AT_MOST = 1.88
"""Host memory at level 1 for each GiB of weights, where their sizes are not known: 1.13 to 1.88 were published."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What the engine's flags make of a model: see the flags of the same names."""

    tokens: int = 8192
    sequences: int = 1024
    tensor: int = 1
    pipeline: int = 1
    cache_bytes: int = 2
    loras: int = 0
    rank: int = 0
    has_graphs: bool = True
    is_pooling: bool = False
    figures: Figures = USUAL


@dataclass(frozen=True, slots=True)
class Need:
    """GiB on each GPU of an engine; that of graphs may be less."""

    weights: float
    cache: float
    activations: float
    cuda: float
    graphs: float = 0.0

    @property
    def least(self) -> float:
        """With less vLLM refuses to start."""
        return self.weights + self.cache + self.activations + self.cuda

    @property
    def safe(self) -> float:
        return self.least + self.graphs

    @property
    def parts(self) -> str:
        """In words."""
        return (
            f"weights {self.weights:.1f}, cache {self.cache:.1f}, activations {self.activations:.1f}, "
            f"CUDA {self.cuda:.2f}"
        )


class Size(NamedTuple):
    """Memory that an engine takes of each of its GPUs, and of the host at level 1 for all of them.

    `need` is None where that is an estimate. `longest` is the longest context with which vLLM starts in so much, and
    `positions` what the model reads at most, 0 where that is not known.
    """

    gib: float
    host_gib: float
    context: int
    need: Need | None = None
    longest: int = 0
    positions: int = 0


def setup_of(flags: Mapping[str, ScalarOption], size_gib: float, figures: Figures = USUAL) -> Setup:
    """From the flags of an engine on GPUs of a size, and vLLM's defaults."""
    tokens, sequences = next(batch for least_gib, *batch in BATCHES if size_gib >= least_gib)
    return Setup(
        tokens=int(flags.get("max-num-batched-tokens", tokens)),
        sequences=int(flags.get("max-num-seqs", sequences)),
        tensor=int(flags.get("tensor-parallel-size", 1)),
        pipeline=int(flags.get("pipeline-parallel-size", 1)),
        cache_bytes=1 if str(flags.get("kv-cache-dtype", "")).startswith("fp8") else 2,
        loras=int(flags.get("max-loras", 1)) if {"max-loras", "enable-lora"} & flags.keys() else 0,
        rank=int(flags.get("max-lora-rank", 16)),
        has_graphs=flags.get("enforce-eager") is not True,
        is_pooling=flags.get("runner") == "pooling",
        figures=figures,
    )


def quantised(model: Model, flags: Mapping[str, ScalarOption]) -> Model:
    """The model as a flag has vLLM quantise it while it loads."""
    method = flags.get("quantization")
    return model if method is None else replace(model, weight_bytes=weight_bytes({"quant_method": method}))


def need_of(model: Model, setup: Setup, context: int) -> Need:
    """Memory for one request of a context, without which vLLM does not start (`_check_enough_kv_cache_memory`)."""
    shards = setup.tensor * setup.pipeline
    weights = sum(each.count * tensor_bytes(model, each, setup) for each in model.matrices) / setup.pipeline
    # Both matrices of an adapter, in 16 bits, for every place that a request may take (lora/layers).
    ranks = sum(each.count * (each.parts * each.inputs + each.outputs) for each in model.matrices if each.linear)
    weights += 2 * setup.loras * setup.rank * ranks / shards
    return Need(
        weights=weights / GIB,
        cache=cache_bytes(model, setup, context) / GIB,
        activations=activation_gib(model, setup),
        cuda=setup.figures.cuda_gib,
        graphs=setup.figures.graphs_gib if setup.has_graphs else 0.0,
    )


def tensor_bytes(model: Model, matrix: Matrix, setup: Setup) -> float:
    """On one GPU."""
    return matrix.elements / setup.tensor * (model.weight_bytes if matrix.linear else 2.0)


def cache_bytes(model: Model, setup: Setup, context: int) -> int:
    """Of one request on each GPU (`max_memory_usage_bytes` of FullAttentionSpec and SlidingWindowSpec), and the block
    that vLLM keeps for itself."""
    kept = min(model.window - 1 + BATCHES_IN_FLIGHT * setup.tokens, context)
    blocks = (model.layers - model.windowed) * (blocks_of(context) + 1) + model.windowed * (blocks_of(kept) + 2)
    heads = max(1, model.kv_heads // setup.tensor) if model.kv_heads else 0
    return -(-blocks // setup.pipeline) * BLOCK_TOKENS * heads * model.head * setup.cache_bytes


def blocks_of(tokens: int) -> int:
    return -(-tokens // BLOCK_TOKENS)


def activation_gib(model: Model, setup: Setup) -> float:
    """Of a step of as many tokens as may be (`profile_run`): a layer's input and residual, gate, up and their product;
    and the logits of as many sequences as may be, in float32 (v1/sample/sampler.py)."""
    step = 2 * setup.tokens * (2 * model.hidden + 3 * model.inner // setup.tensor)
    logits = 0 if setup.is_pooling else 4 * setup.sequences * model.vocabulary
    return setup.figures.activations * (step + logits) / GIB


def longest_context(model: Model, setup: Setup, gib: float) -> int:
    """The most tokens of one request with which vLLM starts in so much memory; 0 where it does not start at all."""
    room = (gib - need_of(model, setup, 0).least) * GIB + cache_bytes(model, setup, 0)
    steps = range(BLOCK_TOKENS, (model.context or 1 << 20) + 1, BLOCK_TOKENS)
    return BLOCK_TOKENS * bisect_right(steps, room, key=lambda context: cache_bytes(model, setup, context))


def pinned_gib(model: Model, setup: Setup) -> float:
    """Host memory that level 1 takes for all GPUs of an engine: PyTorch's pinned memory rounds each tensor up to a
    power of two."""
    tensors = sum(each.count * rounded(tensor_bytes(model, each, setup)) for each in model.matrices)
    return setup.figures.pinned * setup.tensor * tensors / GIB


def rounded(size: float) -> int:
    return 1 << (int(size) - 1).bit_length()


def gpus_of(flags: Mapping[str, ScalarOption]) -> int:
    """GPUs of one engine."""
    sizes = ("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size")
    count = 1
    for size in sizes:
        count *= int(flags.get(size, 1))
    return count


def size_of(
    entries: Sequence[ExpertConfig],
    flags: Mapping[str, ScalarOption],
    model: Model | None,
    size_gib: float,
    figures: Figures = USUAL,
) -> Size:
    """Memory of an engine as an entry or a flag says, or as it needs with some room for more than one request.

    Args:
        entries: of the experts on it.
        model: None where nobody knows its sizes.
        size_gib: of a GPU.
    """
    first, is_pooling = entries[0], flags.get("runner") == "pooling"
    whole = model.context if is_pooling and model is not None else first.context_tokens
    context = int(flags.get("max-model-len", whole))
    told = [entry.gpu_gib for entry in entries if entry.gpu_gib is not None]
    if not told and isinstance(share := flags.get("gpu-memory-utilization"), int | float):
        told = [share * size_gib]
    replicas = int(flags.get("data-parallel-size", 1))
    if model is None:
        weights, shards = weights_gib(first, flags), gpus_of({**flags, "data-parallel-size": 1})
        guessed = with_room(weights / shards, size_gib) if weights else DEFAULT_SHARE * size_gib
        gib = max(told, default=guessed)
        return Size(gib, PINNED_AT_MOST * (weights * replicas or gib * gpus_of(flags)), context)
    model, setup = quantised(model, flags), setup_of(flags, size_gib, figures)
    need = need_of(model, setup, context)
    gib = max(told, default=max(need.safe, with_room(need.weights, size_gib) if model.kv_heads else 0.0))
    longest = longest_context(model, setup, gib)
    return Size(gib, replicas * pinned_gib(model, setup), context, need, longest, model.context)


def with_room(weights_gib: float, size_gib: float) -> float:
    """Weights on one GPU, and what is to be beside them as far as the GPU has it."""
    wanted = weights_gib + max(LEAST_CACHE_GIB, CACHE_SHARE * weights_gib)
    return max(weights_gib, min(wanted, DEFAULT_SHARE * size_gib))


def weights_gib(entry: ExpertConfig, flags: Mapping[str, ScalarOption]) -> float:
    """Of all GPUs together, quantised as a flag or the model's name tells; 0 where the entry names no parameters."""
    words = f"{flags.get('quantization', '')} {entry.model}".lower()
    return entry.params_b * next(gib for name, gib in GIB_PER_BILLION.items() if name in words)
