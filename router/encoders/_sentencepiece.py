"""SentencePiece unigram models (Kudo 2018) for the tokenizers library, read without the sentencepiece package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from base.errors import ConfigError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Field numbers of sentencepiece_model.proto.
MODEL_PIECES, MODEL_NORMALIZER = 1, 3
PIECE_TEXT, PIECE_SCORE = 1, 2
NORMALIZER_CHARSMAP = 2
UNKNOWN = 0


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a `.model` file: its normalisation, a leading space mark, unigram segmentation.

    Raises:
        ConfigError: the file is not such a model.
    """
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import Unigram

    try:
        pieces, charsmap = read_model(path.read_bytes())
        tokenizer = Tokenizer(Unigram(pieces, unk_id=UNKNOWN, byte_fallback=False))
    except (IndexError, struct.error, UnicodeDecodeError, ValueError, OSError) as error:
        raise ConfigError(f"{path}: is not a SentencePiece unigram model") from error
    tokenizer.normalizer = normalizers.Sequence(
        [
            *([normalizers.Precompiled(charsmap)] if charsmap else []),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return tokenizer


def read_model(data: bytes) -> tuple[list[tuple[str, float]], bytes]:
    """Pieces with their log probabilities, in order of their numbers, and the character map (empty when none)."""
    pieces: list[tuple[str, float]] = []
    charsmap = b""
    for field, value in fields(data):
        if field == MODEL_PIECES:
            parts = dict(fields(value))
            score = struct.unpack("<f", parts[PIECE_SCORE])[0] if PIECE_SCORE in parts else 0.0
            pieces.append((parts.get(PIECE_TEXT, b"").decode(), score))
        elif field == MODEL_NORMALIZER:
            charsmap = dict(fields(value)).get(NORMALIZER_CHARSMAP, b"")
    if not pieces:
        raise ValueError("no pieces")
    return pieces, charsmap


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Fields of a protocol buffer message as (number, raw bytes); the bytes of an integer are left empty."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        wire = tag & 7
        if wire == 0:
            _, at = varint(data, at)
            size = 0
        elif wire == 2:
            size, at = varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(data):
            raise ValueError("cut short")
        yield tag >> 3, data[at : at + size]
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length integer at a position, and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
