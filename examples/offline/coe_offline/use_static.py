"""The mean of the token vectors of the multilingual universal sentence encoder: 512 dimensions, 16 languages, and a
fraction of a millisecond a query (Yang et al. 2020)."""

from __future__ import annotations

from pydantic import Field

from coe.router.encoders.static import StaticEncoder
from coe.router.model_files.weights import file_sha256, resolve_weights
from coe.router.reading.features import fingerprint
from coe.router.types import Record
from coe_offline.sentencepiece_files import open_sentencepiece
from coe_offline.use_weights import TOKENIZER, WEIGHTS, read_table

VERSION = 3
"""Raised with every change of the vectors that the options do not show."""


class Options(Record):
    weights: str = WEIGHTS
    tokenizer: str = Field(default=TOKENIZER, description="a SentencePiece model")
    max_tokens: int = Field(default=512, ge=8, description="of a longer text, half at its head and half at its tail")


def build(options: Options) -> StaticEncoder:
    """Raises MissingWeightsError, ConfigError."""
    weights, tokenizer = resolve_weights(options.weights), resolve_weights(options.tokenizer)
    pieces = open_sentencepiece(tokenizer)
    return StaticEncoder(
        table=read_table(weights),
        tokenize=pieces.encode,
        unknown=pieces.unk_id(),
        max_tokens=options.max_tokens,
        fingerprint=fingerprint("static", VERSION, file_sha256(weights), file_sha256(tokenizer), options.max_tokens),
    )


IMPORTS = ("sentencepiece",)
EXAMPLES = (Options(), Options(max_tokens=64))
