"""Large sets of texts encoded on Ray, batch by batch as one process would, so that every vector is the same to the bit.

Where an encoder's threads decide how it sums, processes of Ray have as many as this one: one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from base.ray_engine import spread
from router.build import build_encoder
from router.protocols import Encoder
from router.section import PluginConfig
from router.types import FloatArray


@dataclass(frozen=True)
class SpreadEncoding:
    """Encodes batches by the encoder of a configuration, in as many processes as Ray has cores."""

    config: PluginConfig
    cores: int

    def __call__(self, batches: Sequence[Sequence[str]]) -> Iterator[FloatArray]:
        """Vectors of each batch (n, d), in order."""
        config = self.config.model_dump_json()
        return spread(encode, ((config, batch) for batch in batches), self.cores)


def encode(part: tuple[str, Sequence[str]]) -> FloatArray:
    """Vectors (n, d) by an encoder's configuration, in a process that keeps the encoder for the next batch."""
    config, texts = part
    return kept_encoder(config).encode(texts)


@lru_cache(maxsize=1)
def kept_encoder(config: str) -> Encoder:
    """The encoder of a configuration."""
    return build_encoder(PluginConfig.model_validate_json(config))
