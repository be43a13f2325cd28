"""Google's universal sentence encoder, multilingual v3: 512 dimensions, 16 languages, half a millisecond a query.

The network is the n-gram CNN of Yang et al. 2020 ("Multilingual Universal Sentence Encoder for Semantic Retrieval"):
token vectors, windows of 2, 3 and 5 tokens, a scaled sum over tokens, and a head of residual layers. The weights
(Apache-2.0, 8-bit token table) are read as data from the package that carries them, and run in onnxruntime with
products in whole numbers. One text runs at a time: such a product takes its range from all of its rows.

All before a token meets its neighbours, and its share in each window of the first convolution, depends on the token
alone. That is three fifths of the work, and is kept for the tokens of late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coe.base.errors import ConfigError
from coe.router.encoders.onnx import open_session
from coe.router.model_files.tokenizer_files import head_and_tail
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint
from coe.router.types import FloatArray, Record
from coe_offline.onnx_graph import Graph
from coe_offline.sentencepiece_files import open_sentencepiece
from coe_offline.use_weights import TOKENIZER, WEIGHTS, TokenTable, read_arrays

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from sentencepiece import SentencePieceProcessor

VERSION = 4
"""Raised with every change of the vectors that the options do not show."""

WINDOWS = ((2, 0), (3, 1), (5, 2))
"""Tokens in a window, and how many of them precede the window's own token."""

EMBEDDED, WIDTH = 512, 256
SIZES = [size for size, _ in WINDOWS]
PARTS = (EMBEDDED, *[WIDTH] * (len(WINDOWS) + sum(SIZES)))
"""Widths of the parts of a token's state: its vector, its state for each window, and what it adds to the windows of its
neighbours, by window and place in it."""

EDGE = 2
"""Empty states before and after those of a text, as many as a window reaches beyond it."""

KEPT_TOKENS = 4096
"""After so many tokens, 7.5 KiB each, the states of those that were not used among the last as many are given up."""

NO_TOKENS = bytes(EDGE * sum(PARTS) * np.dtype(np.float16).itemsize)

START, END = 1, 2
OPENING_WEIGHT = 0.7
REST = np.iinfo(np.int64).max
"""The end of a slice that has none."""


class Options(Record):
    weights: str = WEIGHTS
    tokenizer: str = Field(default=TOKENIZER, description="a SentencePiece model")
    max_tokens: int = Field(default=96, ge=8, description="of a longer text, half at its head and half at its tail")
    opening_tokens: int = Field(
        default=0, ge=0, le=128, description="a vector of the first tokens alone is put beside; 0: none"
    )


class TokenStates:
    """States of tokens, made when they are first asked for. Threads may share it: dictionaries that were read once only
    grow.

    Args:
        session: of `write_token_graph`.
    """

    def __init__(self, table: TokenTable, session: InferenceSession) -> None:
        self._table, self._session = table, session
        self._kept: tuple[dict[int, bytes], dict[int, bytes]] = {}, {}  # of late, and before

    def of(self, tokens: Sequence[int]) -> NDArray[np.float16]:
        """(t + 2 * EDGE, sum of PARTS): the states of a text."""
        kept, before = self._kept
        if len(kept) >= KEPT_TOKENS:
            kept, before = self._kept = {}, kept
        if absent := [token for token in dict.fromkeys(tokens) if token not in kept]:
            kept |= {token: before[token] for token in absent if token in before}
            if missing := [token for token in absent if token not in before]:
                made = self._session.run(None, {"embedded": self._table.rows(np.array(missing))})[0]
                kept.update(zip(missing, map(np.ndarray.tobytes, made), strict=True))
        states = b"".join([NO_TOKENS, *map(kept.__getitem__, tokens), NO_TOKENS])
        return np.frombuffer(states, dtype=np.float16).reshape(-1, sum(PARTS))


@dataclass(frozen=True)
class UseMultilingualEncoder:
    """`session` of `write_graph` gives a text's vector, and the opening's where one is wanted."""

    states: TokenStates
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
        ids = [START, *tokens, END]
        lengths = np.array([[len(ids)], [min(len(ids), self.opening_tokens + 1)]], dtype=np.float32)
        found = self.session.run(None, {"states": self.states.of(ids), "root": np.sqrt(lengths)})[0]
        return np.asarray(found.ravel()[: self.dim])


def write_token_graph(layers: Mapping[str, FloatArray]) -> bytes:
    """The part of the network that sees one token, as an ONNX model: `embedded` (t, 512) to states (t, sum of PARTS). A
    state depends on its token alone, to the last bit."""

    def joined(name: str) -> FloatArray:
        return np.concatenate([layers[f"{name}{size}"] for size in SIZES], axis=-1)

    graph = Graph()
    projected = graph.linear_by_row("embedded", joined("proj"), joined("proj_b"))
    normed = graph.norm(projected, joined("ln_g"), joined("ln_b"), float(layers["eps"]))
    parts = ["embedded", normed]
    for (size, before), state in zip(WINDOWS, graph.split(normed, [WIDTH] * len(WINDOWS)), strict=True):
        weights = np.hstack(np.split(layers[f"w1_{size}"], size))
        bias = np.zeros((size, WIDTH), dtype=np.float32)
        bias[before] = layers[f"b1_{size}"]  # each window has one token at this place
        parts.append(graph.linear_by_row(state, weights, bias.ravel()))
    states = graph.cast(graph.add("Concat", *parts, axis=1), "float16")
    return graph.model({"embedded": ("float32", ("tokens", EMBEDDED))}, {states: ("float16", ("tokens", sum(PARTS)))})


def write_graph(layers: Mapping[str, FloatArray], opening_tokens: int) -> bytes:
    """The rest of the network: `states` of a text's tokens between empty ones, and `root` (2, 1), the square roots of
    how many tokens the text and its opening have, to their vectors (2, 512), which together have unit length."""
    graph = Graph()
    features, shares = [shifted(graph, 0, 0)], count(1 + len(WINDOWS))
    for own, (size, before) in enumerate(WINDOWS, start=1):
        seen = graph.add("Sum", *(shifted(graph, next(shares), i - before) for i in range(size)))
        state = graph.add("Add", graph.add("Relu", seen), shifted(graph, own, 0))
        levels, scale, zero = graph.quantise(state)  # before a token's row is copied into each of its windows
        weights, weights_scale = graph.quantised(layers[f"w2_{size}"])
        bias = graph.constant(layers[f"b2_{size}"])
        windowed = windows(graph, levels, zero, size, before)
        grown = graph.add("MatMulIntegerToFloat", windowed, weights, scale, weights_scale, zero, "", bias)
        features.append(graph.add("Add", graph.add("Relu", grown), state))
    joined = graph.add("Concat", *features, axis=1)
    tokens = graph.norm(joined, layers["ln_g"], layers["ln_b"], float(layers["eps"]))
    ends = [graph.constant(np.array([end])) for end in (0, opening_tokens + 1)]
    opening = graph.add("Slice", tokens, ends[0], ends[1], ends[0])
    means = [graph.add("ReduceMean", part, ends[0], keepdims=1) for part in (tokens, opening)]
    pooled = graph.linear(graph.add("Concat", *means, axis=0), layers["cnn_W"], layers["cnn_b"])
    unit = graph.add("LpNormalization", head(graph, graph.add("Mul", pooled, "root"), layers), axis=1, p=2)
    lengths = np.array([[1], [OPENING_WEIGHT if opening_tokens else 0]], dtype=np.float32)
    vectors = graph.add("Mul", unit, graph.constant(lengths / np.linalg.norm(lengths)))
    return graph.model(
        {"states": ("float16", ("tokens", sum(PARTS))), "root": ("float32", (2, 1))},
        {vectors: ("float32", (2, 512))},
    )


def shifted(graph: Graph, part: int, by: int) -> str:
    """(t, w) of one of the PARTS of `states`: row i is of the token `by` places after token i. It is cut out of all of
    them at once, because a split would copy them before."""
    left = sum(PARTS[:part])
    starts, ends = np.array([EDGE + by, left]), np.array([by - EDGE or REST, left + PARTS[part]])
    return graph.cast(graph.add("Slice", "states", graph.constant(starts), graph.constant(ends)), "float32")


def head(graph: Graph, pooled: str, layers: Mapping[str, FloatArray]) -> str:
    """Two residual layers, the second under a hyperbolic tangent."""

    def residual(state: str, straight: str, down: str, up: str) -> str:
        both = graph.linear(state, np.hstack([layers[straight], layers[down]]))
        kept, inner = graph.split(both, [layers[name].shape[1] for name in (straight, down)])
        return graph.add("Add", kept, graph.linear(graph.add("Relu", inner), layers[up]))

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
        token_model, model = write_token_graph(layers), write_graph(layers, options.opening_tokens)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"use_multilingual encoder: {weights.name} does not hold its weights ({error})") from error
    return UseMultilingualEncoder(
        states=TokenStates(table, open_session(token_model, keeps_memory=True)),
        session=open_session(model, keeps_memory=True),
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


IMPORTS = ("onnxruntime", "sentencepiece")
EXAMPLES = (Options(), Options(max_tokens=32, opening_tokens=10))
