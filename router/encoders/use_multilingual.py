"""Google's universal sentence encoder, multilingual v3: 512 dimensions, 16 languages, about a millisecond a query.

The network is the n-gram CNN of Yang et al. 2020 ("Multilingual Universal Sentence Encoder for Semantic Retrieval"):
token vectors, windows of 2, 3 and 5 tokens, a scaled sum over tokens, and a head of residual layers. The weights
(Apache-2.0, 8-bit token table) are read as data from the package that carries them, and run in onnxruntime with
products in whole numbers. One text runs at a time: such a product takes its range from all of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from base.errors import ConfigError
from router.encoders._onnx import Graph, open_session
from router.encoders._tokenizer import head_and_tail, open_sentencepiece
from router.encoders._use_weights import TOKENIZER, WEIGHTS, TokenTable, read_arrays
from router.types import FloatArray
from router.weights import file_sha256, fingerprint, resolve_weights

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from sentencepiece import SentencePieceProcessor

VERSION = 3
"""Raised with every change of the vectors that the options do not show."""

WINDOWS = ((2, 0), (3, 1), (5, 2))
"""Tokens in a window, and how many of them precede the window's own token."""

START, END = 1, 2
OPENING_WEIGHT = 0.7
REST = np.iinfo(np.int64).max
"""The end of a slice that has none."""


class Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str = WEIGHTS
    tokenizer: str = Field(default=TOKENIZER, description="a SentencePiece model")
    max_tokens: int = Field(default=96, ge=8, description="of a longer text, half at its head and half at its tail")
    opening_tokens: int = Field(
        default=0, ge=0, le=128, description="a vector of the first tokens alone is put beside; 0: none"
    )


@dataclass(frozen=True)
class UseMultilingualEncoder:
    """The graph takes token vectors (t, 512) and gives the text's vector, and the opening's where one is wanted."""

    table: TokenTable
    session: InferenceSession
    tokenizer: SentencePieceProcessor
    max_tokens: int
    opening_tokens: int
    dim: int
    fingerprint: str
    is_inline: bool = False

    def encode(self, texts: Sequence[str]) -> FloatArray:
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            if text.strip():
                vectors[row] = self.encode_tokens(head_and_tail(self.tokenizer.encode(text), self.max_tokens))
        return vectors

    def encode_tokens(self, tokens: Sequence[int]) -> FloatArray:
        """(d,) unit vector of one text."""
        ids = np.array([START, *tokens, END])
        lengths = np.array([[len(ids)], [min(len(ids), self.opening_tokens + 1)]], dtype=np.float32)
        whole, opening = self.session.run(None, {"embedded": self.table.rows(ids), "root": np.sqrt(lengths)})[0]
        parts = [whole / np.linalg.norm(whole)]
        if self.opening_tokens:
            parts.append(opening * (OPENING_WEIGHT / np.linalg.norm(opening)))
        vector = np.concatenate(parts)
        return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def write_graph(layers: Mapping[str, FloatArray], opening_tokens: int) -> bytes:
    """The network as an ONNX model: `embedded` (t, 512) and `root` (2, 1), the square roots of how many tokens the text
    and its opening have, to their vectors (2, 512)."""
    graph = Graph()
    norm_epsilon = float(layers["eps"])

    def joined(name: str) -> FloatArray:
        return np.concatenate([layers[f"{name}{size}"] for size, _ in WINDOWS], axis=-1)

    projected = graph.linear("embedded", joined("proj"), joined("proj_b"))
    normed = graph.norm(projected, joined("ln_g"), joined("ln_b"), norm_epsilon)
    features = ["embedded"]
    states = graph.split(normed, len(WINDOWS))
    for (size, before), state in zip(WINDOWS, states, strict=True):
        for step in ("1", "2"):
            levels, scale, zero = graph.quantise(state)  # before a token's row is copied into each of its windows
            seen = windows(graph, levels, zero, size, before)
            weights, weights_scale = graph.quantised(layers[f"w{step}_{size}"])
            bias = graph.constant(layers[f"b{step}_{size}"])
            grown = graph.add("MatMulIntegerToFloat", seen, weights, scale, weights_scale, zero, "", bias)
            state = graph.add("Add", graph.add("Relu", grown), state)
        features.append(state)
    tokens = graph.norm(graph.add("Concat", *features, axis=1), layers["ln_g"], layers["ln_b"], norm_epsilon)
    ends = [graph.constant(np.array([end])) for end in (0, opening_tokens + 1)]
    opening = graph.add("Slice", tokens, ends[0], ends[1], ends[0])
    means = [graph.add("ReduceMean", part, ends[0], keepdims=1) for part in (tokens, opening)]
    pooled = graph.linear(graph.add("Concat", *means, axis=0), layers["cnn_W"], layers["cnn_b"])
    return graph.model(
        {"embedded": ("float32", ("tokens", 512)), "root": ("float32", (2, 1))},
        {head(graph, graph.add("Mul", pooled, "root"), layers): ("float32", (2, 512))},
    )


def head(graph: Graph, pooled: str, layers: Mapping[str, FloatArray]) -> str:
    """Two residual layers, the second under a hyperbolic tangent."""

    def residual(state: str, straight: str, down: str, up: str) -> str:
        inner = graph.add("Relu", graph.linear(state, layers[down]))
        return graph.add("Add", graph.linear(state, layers[straight]), graph.linear(inner, layers[up]))

    return graph.add("Tanh", residual(graph.add("Relu", residual(pooled, "p1", "d0", "d1")), "p3", "d2", "d3"))


def windows(graph: Graph, state: str, zero: str, size: int, before: int) -> str:
    """(t, size * w) from (t, w): each token's neighbours side by side, `zero` beyond the text."""
    padded = graph.add("Pad", state, graph.constant(np.array([before, 0, size - 1 - before, 0])), zero)
    axis = graph.constant(np.array([0]))
    shifted = [
        graph.add(
            "Slice", padded, graph.constant(np.array([i])), graph.constant(np.array([i - size + 1 or REST])), axis
        )
        for i in range(size)
    ]
    return graph.add("Concat", *shifted, axis=1)


def build(options: Options) -> UseMultilingualEncoder:
    """Raises MissingWeightsError, ConfigError."""
    weights, tokenizer = resolve_weights(options.weights), resolve_weights(options.tokenizer)
    table, layers = read_arrays(weights)
    try:
        model = write_graph(layers, options.opening_tokens)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"use_multilingual encoder: {weights.name} does not hold its weights ({error})") from error
    return UseMultilingualEncoder(
        table=table,
        session=open_session(model),
        tokenizer=open_sentencepiece(tokenizer),
        max_tokens=options.max_tokens,
        opening_tokens=options.opening_tokens,
        dim=512 * (2 if options.opening_tokens else 1),
        fingerprint=fingerprint(
            "use_multilingual",
            VERSION,
            file_sha256(weights),
            file_sha256(tokenizer),
            options.max_tokens,
            options.opening_tokens,
        ),
    )


IMPORTS, EXTRA = ("onnxruntime", "sentencepiece"), "encoders"
EXAMPLES = (Options(), Options(max_tokens=32, opening_tokens=10))
