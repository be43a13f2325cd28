"""Embeddings are remembered by content, exactly, and never confused between encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from coe.base.embedding_cache import CACHE_FILE, CachedEncoder
from coe.base.errors import DataError
from coe.router.encoders.hashing import HashingEncoder, Options, build
from coe.router.types import FloatArray


@dataclass(frozen=True)
class Counting:
    """Counts the texts that really are encoded."""

    inner: HashingEncoder
    seen: list[str] = field(default_factory=list)
    dim: int = 16
    is_inline: bool = True

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    def encode(self, texts: Sequence[str]) -> FloatArray:
        self.seen.extend(texts)
        return self.inner.encode(texts)


def counting(dim: int = 16) -> Counting:
    return Counting(build(Options(dim=dim)), dim=dim)


def test_a_text_is_encoded_once_and_comes_back_to_the_bit(tmp_path: Path) -> None:
    encoder = counting()
    texts = ["one", "two", "one", "", "façade"]
    first = CachedEncoder(encoder, tmp_path, batch_size=2).encode(texts)
    assert encoder.seen == ["one", "two", "", "façade"]
    again = CachedEncoder(encoder, tmp_path).encode(["two", "one", "new"])
    assert encoder.seen[4:] == ["new"]
    np.testing.assert_array_equal(again[:2], first[[1, 0]])
    np.testing.assert_array_equal(first, build(Options(dim=16)).encode(texts))


def test_another_encoder_has_vectors_of_its_own(tmp_path: Path) -> None:
    small = CachedEncoder(counting(16), tmp_path).encode(["one"])
    large = CachedEncoder(counting(32), tmp_path).encode(["one"])
    assert (small.shape, large.shape) == ((1, 16), (1, 32))


def test_nothing_to_encode_and_progress(tmp_path: Path) -> None:
    told: list[int] = []
    encoder = CachedEncoder(counting(), tmp_path, batch_size=2, on_progress=told.append)
    assert encoder.encode([]).shape == (0, 16)
    encoder.encode(["a", "b", "c"])
    assert told == [2, 3]
    assert (encoder.dim, encoder.is_inline, encoder.fingerprint) == (16, False, counting().fingerprint)


def test_a_broken_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / CACHE_FILE).write_bytes(b"this is not a database, however long it may be" * 100)
    with pytest.raises(DataError, match=r"embeddings\.db: the embedding cache cannot be used"):
        CachedEncoder(counting(), tmp_path).encode(["one"])
